"""The content of mails: finds and renders templates, and checks them at enqueueing. processors.email sends mails."""

from rqjobs.mail.templates import Content, TemplateFault, check, render, template_names

__all__ = ["Content", "TemplateFault", "check", "render", "template_names"]
