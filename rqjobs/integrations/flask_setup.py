"""Loads the Flask app when it is imported: its jobs are known then, and run in its context.

``FLASK_APP=app RQJOBS_IMPORT=rqjobs.integrations.flask_setup rqjobs worker``; ``flask rqjobs worker`` does it by
itself. Without FLASK_APP it is ``wsgi.py`` or ``app.py``, as for the ``flask`` command.
"""

import os

from flask.cli import ScriptInfo

ScriptInfo(app_import_path=os.environ.get("FLASK_APP")).load_app()
