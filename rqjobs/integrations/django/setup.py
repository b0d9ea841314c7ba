"""Sets Django up when it is imported, for a plain ``rqjobs worker`` in a Django project.

``DJANGO_SETTINGS_MODULE=shop.settings RQJOBS_IMPORT=rqjobs.integrations.django.setup rqjobs worker``;
``manage.py rqjobs worker`` does not need it.
"""

import django
from django.apps import apps

if not apps.ready:
    django.setup()
