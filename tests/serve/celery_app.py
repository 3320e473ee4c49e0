"""An orchestrator's Celery application, with a broker and results in a folder."""

import os
from pathlib import Path

from celery import Celery

FOLDER = Path(os.environ["CELERY_TEST_FOLDER"])
QUEUE, RESULTS = FOLDER / "queue", FOLDER / "results"
for folder in (QUEUE, RESULTS):
    folder.mkdir(parents=True, exist_ok=True)

app = Celery("orchestrator", include=["deployments.client.celery_tasks"])
app.conf.update(
    broker_url="filesystem://",
    broker_transport_options={
        "data_folder_in": str(QUEUE),
        "data_folder_out": str(QUEUE),
        # Else in the folder that the tests run in.
        "control_folder": str(FOLDER / "control"),
    },
    result_backend=f"file://{RESULTS}",
    broker_connection_retry_on_startup=True,
    worker_enable_remote_control=False,
)


@app.task(name="app.tasks.extract_concepts")
def extract_concepts(media_item_id, transcript_segments, hand_on="dict"):
    """The step before: hands over what `hand_on` says."""
    return {
        "dict": {
            "status": "success",
            "concepts": ["RSI"],
            "media_item_id": media_item_id,
            "transcript_segments": transcript_segments,
        },
        "segments": transcript_segments,
        "concepts": ["RSI", "support"],
        "text": "done",
    }[hand_on]


@app.task(name="app.tasks.generate_strategies")
def generate_strategies(embedded):
    """The step after: tells what it was handed."""
    return {"strategies": 1, "embedded": embedded}
