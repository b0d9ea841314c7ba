"""``rqjobs doctor``: checks this installation and shows the fix of each fault; it changes nothing."""
