"""What routes answer, for the OpenAPI document: examples over the sample data."""

from typing import Any

_TIME = "2025-11-20T21:00:00Z"
_FINGERPRINT = "da8b691c17ad80f95951be63cb5ac3f90e322bb06e9bfe023f3e8d59acbef217"

_SEGMENT = {
    "tags": ["rsi", "overbought", "thresholds"],
    "speaker": "Instructor",
    "media_item_id": 101,
    "segment_id": 5,
    "start_time": 37.3,
    "end_time": 46.7,
    "text": "So when is a stock overbought? The usual convention is a Relative Strength Index "
    "reading above seventy: buyers have pushed the price up unusually fast.",
}
_FRAME = {
    "kind": "slide",
    "image_path": "frames/101/000126.jpg",
    "media_item_id": 101,
    "segment_id": 8,
    "start_time": 126.2,
    "end_time": 139.8,
    "text": "Table of RSI ranges: bull market about 40 to 90, bear market about 20 to 60",
}
_CLIP = {
    "title": "The one percent rule",
    "media_item_id": 108,
    "segment_id": 1,
    "start_time": 0.5,
    "end_time": 43.6,
    "text": "How much to risk on one trade: limit each loss to about 1% of the account.",
}


def _result(similarity: float, metadata: dict[str, Any], **more: Any) -> dict[str, Any]:
    distance = round(1 - similarity, 3)
    return {"index": 0, "similarity": similarity, "distance": distance, **more} | {
        "metadata": metadata
    }


def _found(query: str, kind: str, *results: dict[str, Any]) -> dict[str, Any]:
    return {
        "query": query,
        "embedding_type": kind,
        "results": list(results),
        "timestamp": _TIME,
    }


_TRANSCRIPTS = _found("when is a stock overbought?", "transcript", _result(0.807, _SEGMENT))
_FRAMES = _found("RSI ranges in bull markets", "frame", _result(0.638, _FRAME))
_CLIPS = _found("how much to risk", "clip", _result(0.673, _CLIP))

_MODEL = {
    "id": "all-MiniLM-L6-v2",
    "object": "model",
    "created": 0,
    "owned_by": "embeddings-service",
    "embedding_dimension": 384,
    "fingerprint": _FINGERPRINT,
}


def _index(rows: int) -> dict[str, Any]:
    return {
        "model_name": "all-MiniLM-L6-v2",
        "embedding_dimension": 384,
        "configured": "auto",
        "type": "flat",
        "rows": rows,
        "deleted_rows": 0,
        "main_rows": 0,
        "building": False,
        "build_progress": None,
        "recall_at_10": None,
    }


_STATS = {
    "model_name": "all-MiniLM-L6-v2",
    "embedding_dimension": 384,
    "transcript_vectors": 1250,
    "frame_vectors": 450,
    "clip_vectors": 380,
    "total_vectors": 2080,
    "salvage": None,
    "indices": {"transcript": _index(1250), "frame": _index(450), "clip": _index(380)},
    "last_write": _TIME,
    "encoder_replicas": 1,
    "timestamp": _TIME,
}

_HEALTHY = {
    "status": "healthy",
    "timestamp": _TIME,
    "service": "embeddings-service",
    "stats": _STATS,
    "reason": None,
}

UNHEALTHY = _HEALTHY | {
    "status": "unhealthy",
    "stats": None,
    "reason": "Not ready: the index isn't available; `serve status` tells why",
}
"""With the status 503."""

OPENAI_ERROR = {
    "error": {
        "message": "the model 'text-embedding-3-small' isn't served here; 'all-MiniLM-L6-v2' is",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
}
"""Under /v1, whatever the status."""


def _migration(state: str) -> dict[str, Any]:
    running = state == "running"
    index = {
        "from_model": "all-MiniLM-L6-v2",
        "to_model": "all-MiniLM-L12-v2",
        "overlap_at_10": None if running else 0.71,
        "queries": 0 if running else 100,
    }
    return {
        "migration": {
            "state": state,
            "indices": dict.fromkeys(("transcript", "frame", "clip"), index),
            "rows_done": 1280 if running else 6000,
            "rows": 6000,
            "switch_when_ready": True,
            "started": _TIME,
            "switched": _TIME if state == "switched" else None,
            "reason": None,
        },
        "timestamp": _TIME,
    }


ANSWERS: dict[str, Any] = {
    "POST /embed": {
        "status": "success",
        "media_item_id": 1,
        "embedding_type": "transcript",
        "embeddings_created": 2,
        "changed": 2,
        "removed": 0,
        "truncated": 0,
        "timestamp": _TIME,
    },
    "GET /media": {
        "media": [
            {"media_item_id": 101, "segments": {"transcript": 31, "frame": 11, "clip": 7}},
            {"media_item_id": 102, "segments": {"transcript": 30, "frame": 11, "clip": 7}},
        ],
        "next_cursor": "WzEsIkFvaWZsLVdyQTdZbiIsIjEwMiJd",
        "timestamp": _TIME,
    },
    "GET /media/{media_item_id}/segments": {
        "segments": [{"embedding_type": "transcript", "metadata": _SEGMENT}],
        "start_time": 0.0,
        "end_time": 275.2,
        "next_cursor": None,
        "timestamp": _TIME,
    },
    "DELETE /media/{media_item_id}": {
        "status": "success",
        "media_item_id": "101",
        "embedding_type": None,
        "embeddings_deleted": 49,
        "timestamp": _TIME,
    },
    "POST /search": _TRANSCRIPTS,
    "POST /search/batch": {"responses": [_TRANSCRIPTS, _FRAMES], "timestamp": _TIME},
    "POST /search/similar": {
        "media_item_id": 101,
        "segment_id": 8,
        "embedding_type": "frame",
        "results": [_result(0.638, _FRAME | {"segment_id": 9})],
        "timestamp": _TIME,
    },
    "GET /search/transcripts": _TRANSCRIPTS,
    "GET /search/frames": _FRAMES,
    "GET /search/clips": _CLIPS,
    "GET /embeddings/search": _TRANSCRIPTS,
    "POST /search/moments": {
        "query": "RSI above 70 on the chart",
        "moments": [
            {
                "media_item_id": 101,
                "start_time": 37.3,
                "end_time": 46.7,
                "score": 1.035,
                "evidence": {
                    "transcript": [
                        {
                            "similarity": 0.72,
                            "distance": 0.28,
                            "score": 2.184,
                            "metadata": _SEGMENT,
                        }
                    ]
                },
            }
        ],
        "exhausted": True,
        "timestamp": _TIME,
    },
    "POST /v1/embeddings": {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [-0.079, -0.0013, -0.0094]}],
        "model": "all-MiniLM-L6-v2",
        "usage": {"prompt_tokens": 6, "total_tokens": 6},
    },
    "GET /v1/models": {"object": "list", "data": [_MODEL]},
    "GET /v1/models/{model}": _MODEL,
    "GET /migrations": _migration("running"),
    "POST /migrations": _migration("running"),
    "POST /migrations/switch": _migration("switched"),
    "POST /migrations/rollback": _migration("ready"),
    "DELETE /migrations": {"migration": None, "timestamp": _TIME},
    "GET /stats": _STATS,
    "GET /health": _HEALTHY,
    "GET /health/ready": _HEALTHY,
    "GET /health/live": {"status": "alive"},
}
"""The answer of each route with the status 200."""
