"""``path("rqjobs/", include("rqjobs.integrations.django.urls"))``: the dashboard under the admin's login, downloads.

The dashboard is at ``rqjobs/``, export files at ``rqjobs/downloads/<token>`` (set EXPORT_LINK_URL to it).
"""

from django.urls import path

from rqjobs.integrations.django.views import dashboard, downloads

app_name = "rqjobs"

urlpatterns = [
    path("downloads/<path:path>", downloads, name="downloads"),
    path("", dashboard, name="dashboard"),
    path("<path:path>", dashboard, name="dashboard-page"),
]
