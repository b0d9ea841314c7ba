"""What a mail says: templates found, checked at enqueue, rendered when sent. How it travels: processors.email."""

from rqjobs.mail.templates import Content, TemplateFault, check, render, template_names

__all__ = ["Content", "TemplateFault", "check", "render", "template_names"]
