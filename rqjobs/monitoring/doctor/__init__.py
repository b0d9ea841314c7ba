"""``rqjobs doctor``: checks of this installation, each with its fix; nothing is changed."""
