"""The content of mails: templates are found, checked at enqueue, rendered by the worker. Sending: processors.email."""

from rqjobs.mail.templates import Content, TemplateFault, check, render, template_names

__all__ = ["Content", "TemplateFault", "check", "render", "template_names"]
