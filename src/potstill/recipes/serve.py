"""The command serve: a saved model as a service with a page."""

import ipaddress
import logging
import os
from dataclasses import replace
from pathlib import Path

from potstill.inference.classifier import Classifier
from potstill.inference.locate import named_or_newest, resolve_model
from potstill.recipes.console import log_choice
from potstill.recipes.predict import load_fast
from potstill.serving.settings import ServeSettings

logger = logging.getLogger(__name__)


def serve(
    model_path: Path | None,
    teacher_path: Path | None,
    *,
    settings: ServeSettings,
    precision: str = "auto",
    gpt_variant: str | None = None,
) -> None:
    """Serve a model until a signal ends it; see `commands.serve`."""
    from potstill.serving.app import make_app
    from potstill.serving.server import bind, run_server

    settings = replace(settings, token=settings.token or os.environ.get("POTSTILL_TOKEN"))
    listening = bind(settings.host, settings.port)
    folder, reason = named_or_newest(model_path)
    models: dict[str, Classifier] = {
        "student": load_fast(folder, gpt_variant=gpt_variant, precision=precision)
    }
    log_choice("model", f"{models['student'].title} in {folder}", reason)
    if teacher_path:
        models["teacher"] = load_fast(resolve_model(teacher_path), precision=precision)
        log_choice("teacher", f"{models['teacher'].title} in {teacher_path}")
    app = make_app(models, settings)
    host, port = listening.getsockname()[:2]
    if not ipaddress.ip_address(host).is_loopback and not settings.token:
        logger.info(f"whoever reaches {host} can use it; `token` asks for a token")
    where = f"[{host}]" if ":" in host else host
    logger.info(f"serving at http://{where}:{port}; Ctrl-C ends it")
    run_server(app, listening, settings)
