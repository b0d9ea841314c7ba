"""The dashboard behind the admin's login, and downloads.

``path("rqjobs/", include("rqjobs.integrations.django.urls"))``: the dashboard is at ``rqjobs/``, export files at
``rqjobs/downloads/<token>`` (set EXPORT_LINK_URL to it).
"""

from django.urls import path

from rqjobs.integrations.django.views import dashboard, downloads

app_name = "rqjobs"

urlpatterns = [
    path("downloads/<path:path>", downloads, name="downloads"),
    path("", dashboard, name="dashboard"),
    path("<path:path>", dashboard, name="dashboard-page"),
]
