"""The shop's URLs; the dashboard is at /rqjobs/, for superusers, under the admin's login."""

from bookings.views import book
from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("rqjobs/", include("rqjobs.integrations.django.urls")),
    path("bookings", book),
]
