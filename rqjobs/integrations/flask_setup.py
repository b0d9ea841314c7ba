"""Loads the Flask app when it is imported, so that its jobs are registered and run in its context.

``FLASK_APP=app RQJOBS_IMPORT=rqjobs.integrations.flask_setup rqjobs worker``; ``flask rqjobs worker`` does not need
it. Without FLASK_APP it loads ``wsgi.py`` or ``app.py``, as the ``flask`` command does.
"""

import os

from flask.cli import ScriptInfo

ScriptInfo(app_import_path=os.environ.get("FLASK_APP")).load_app()
