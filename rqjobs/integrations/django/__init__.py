"""Django: add ``"rqjobs.integrations.django"`` to INSTALLED_APPS. See :mod:`rqjobs.integrations.django.apps`."""
