"""Changes by operator that nobody could notice: by file, the line and the change, with the reason."""

EQUAL = {
    "gunicorn.py": {
        (
            "if greenlets and worker.cfg.preload_app:",
            "greenlets and worker.cfg.preload_app → (greenlets or worker.cfg.preload_app)",
        ): "what is unfrozen at the end of another worker harms nobody",
    },
    "measure/recorder.py": {
        ("until = second + 1.0", "second + 1.0 → (second - 1.0)"): (
            "each request looks for its second anew, which costs time and finds the same"
        ),
    },
    "pages/figures.py": {
        ("return round(milliseconds, 6)", "6 → (7)"): "a choice",
        ('if labels["status"] >= "5":', "labels['status'] >= '5' → (labels['status'] > '5')"): (
            "no status is 5"
        ),
    },
    "pages/inflight.py": {('"age_seconds": round(age, 6),', "6 → (7)"): "a choice"},
    "worker/losses.py": {
        ("if version in ((0, 0), self._version):", "0 → (1)"): "a file that is not there has no deaths",
    },
    "worker/peers.py": {
        ("fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, at)", "1 → (2)"): (
            "the next byte is that of one address in 2 to the power of 56"
        ),
    },
    "worker/sampler.py": {
        ("WALKS = 64", "64 → (65)"): "a choice",
        ("if len(old) <= WALKS:", "len(old) <= WALKS → (len(old) < WALKS)"): (
            "of exactly so many all have their turn, in another order"
        ),
    },
}
