"""Mail templates, from the app's folder, then the built-in one: sandboxed, escaped, strict about missing variables."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rqjobs.config.addresses import is_line, parse_address
from rqjobs.config.settings import Settings, get_settings
from rqjobs.errors import RQJobsError
from rqjobs.jobs import EmailJob
from rqjobs.mail.filters import FILTERS
from rqjobs.mail.text import text_of

if TYPE_CHECKING:  # Jinja costs a web process 30 ms: it is imported at the first mail
    from css_inline import CSSInliner
    from jinja2 import Environment, Template

BUILTIN = Path(__file__).with_name("builtin")
"""The folder of the built-in templates."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(?:/[A-Za-z0-9][A-Za-z0-9_-]*)*")
_DEFAULT_FOLDER: Path = Settings.model_fields["email_templates"].default
_HTML, _TEXT = ".html.j2", ".txt.j2"


class TemplateFault(RQJobsError, ValueError):
    """A template that is missing, broken, or lacks a variable; the message names it."""


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a mail."""

    subject: str
    html: str | None
    """The HTML; None if the template has only text."""
    text: str


def check(job: EmailJob) -> list[str]:
    """Returns the faults of the mail that are known before it is sent: a missing template, variable or subject.

    If EMAIL_TEMPLATES names a folder that is not on this machine, only workers can check, and nothing is a fault.
    """
    settings = get_settings()
    elsewhere = settings.email_templates != _DEFAULT_FOLDER and not settings.email_templates.is_dir()
    if elsewhere and _NAME.fullmatch(job.template) and not _files(BUILTIN, job.template):
        return []
    try:
        _render(job.template, job.data, job.subject)
    except TemplateFault as fault:
        return [str(fault)]
    return []


def render(template: str, data: dict[str, Any], *, subject: str | None, inline: bool = True) -> Content:
    """Renders a template.

    Args:
        template: its name, without a suffix.
        data: its variables. ``brand`` (name, url, address, color) and ``subject`` are always defined.
        subject: the subject; None for that of the template's block ``subject``.
        inline: move the CSS of style elements into the elements, if css-inline is installed.

    Raises:
        TemplateFault: the template is missing or broken, or lacks a variable or a subject.
    """
    subject, body, text = _render(template, data, subject)
    if text is None:
        text = text_of(body or "")
    return Content(subject, inline_css(body) if body and inline else body, text)


def _render(template: str, data: dict[str, Any], subject: str | None) -> tuple[str, str | None, str | None]:
    """Returns the subject, the HTML and the text; None for parts that the template does not have."""
    files = _find(template)
    environment = _environment(get_settings().email_templates.absolute())
    context = {"subject": subject or "", **data, "brand": _brand(data)}
    sources = [_load(environment, template + ending) for ending in files]
    if subject is None:
        subject = context["subject"] = _own_subject(template, sources, context)
    rendered = {ending: _run(source, context) for ending, source in zip(files, sources, strict=True)}
    return subject, rendered.get(_HTML), rendered.get(_TEXT)


def template_names() -> dict[str, str]:
    """Returns the names of all templates, each with its origin: ``built-in`` or the app's folder."""
    folder = get_settings().email_templates
    found = {}
    for root, where in ((BUILTIN, "built-in"), (folder, str(folder))):
        for path in sorted(root.rglob("*.j2")):
            name = path.relative_to(root).as_posix().removesuffix(_HTML).removesuffix(_TEXT)
            if _NAME.fullmatch(name):
                found[name] = where
    return found


def inline_css(body: str) -> str:
    """Returns ``body`` with the CSS of its style elements moved into the elements, which all mail programs support.

    Without the package css-inline it is returned unchanged. External stylesheets are never loaded.
    """
    inliner = _inliner()
    if inliner is None or "<style" not in body:
        return body
    try:
        return inliner.inline(body)
    except ValueError as error:  # css_inline.InlineError
        raise TemplateFault(f"'template': its CSS cannot be inlined: {error}") from error


@cache
def _inliner() -> CSSInliner | None:
    try:
        import css_inline
    except ImportError:
        return None
    # At-rules are kept: media queries for phones and dark mode work only in a style element.
    return css_inline.CSSInliner(load_remote_stylesheets=False, keep_at_rules=True)


def _files(folder: Path, name: str) -> list[str]:
    # Unlike Path.is_file(), this raises no error for a name that is too long for the file system.
    return [ending for ending in (_HTML, _TEXT) if os.path.isfile(folder / (name + ending))]  # noqa: PTH113


def _find(name: str) -> list[str]:
    """Returns the suffixes of the template's files; the app's HTML is never combined with our text."""
    folder = get_settings().email_templates
    if not _NAME.fullmatch(name):
        raise TemplateFault(f"'template': {name!r} is not a name of letters, digits, '_' and '-'")
    files = _files(folder, name) or _files(BUILTIN, name)
    if not files:
        known = ", ".join(template_names())
        raise TemplateFault(f"'template': there is no {name}{_HTML} or {name}{_TEXT} in {folder}; there are {known}")
    return files


@cache
def _environment(folder: Path) -> Environment:
    from jinja2 import FunctionLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        loader=FunctionLoader(partial(_source, folder)),
        autoescape=lambda name: name is None or not name.endswith(_TEXT),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def _source(folder: Path, name: str) -> tuple[str, str, Callable[[], bool]] | None:
    """Jinja's loader function. A file that appears in the app's folder replaces the built-in one at once."""
    from jinja2.loaders import split_template_path

    parts = split_template_path(name)  # refuses ".."

    def version() -> tuple[Path, int] | None:
        for path in (folder.joinpath(*parts), BUILTIN.joinpath(*parts)):
            if path.is_file():
                return path, path.stat().st_mtime_ns
        return None

    found = version()
    return found and (found[0].read_text(encoding="utf-8"), str(found[0]), lambda: version() == found)


def _load(environment: Environment, name: str) -> Template:
    from jinja2 import TemplateSyntaxError

    try:
        return environment.get_template(name)
    except TemplateSyntaxError as error:
        raise TemplateFault(f"'template': {error.name}, line {error.lineno}: {error.message}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateFault(f"'template': {name} cannot be read: {error}") from error


def _run(template: Template, context: dict[str, Any], *, block: str | None = None) -> str:
    from jinja2 import TemplateNotFound, TemplateSyntaxError, UndefinedError

    try:
        if block is not None:
            return "".join(template.blocks[block](template.new_context(context)))
        return template.render(context)
    except UndefinedError as error:
        raise TemplateFault(f"'data': the template {template.name} needs more: {error.message}") from error
    except TemplateNotFound as error:
        raise TemplateFault(f"'template': {template.name} needs {error.name}, which is missing") from error
    except TemplateSyntaxError as error:
        raise TemplateFault(f"'template': {error.name}, line {error.lineno}: {error.message}") from error
    except Exception as error:  # a template may raise any error, such as a filter's ValueError or a TypeError
        raise TemplateFault(f"'data': the template {template.name} fails: {type(error).__name__}: {error}") from error


def _own_subject(name: str, sources: list[Template], context: dict[str, Any]) -> str:
    for source in sources:
        if "subject" in source.blocks:
            text = _run(source, context, block="subject")
            line = " ".join((text if (source.name or "").endswith(_TEXT) else html.unescape(text)).split())
            if line and is_line(line):
                return line
    raise TemplateFault(f"'subject' is missing, and the template {name} has no block 'subject'")


def _brand(data: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of the sender for the layout; ``brand`` in the data overrides them."""
    own = data.get("brand")
    sender = parse_address(get_settings().email_from)
    return {"name": sender.name or sender.domain, **(own if isinstance(own, dict) else {})}
