"""Changes by operator that nobody could notice: by file, the line and the change, with the reason."""

EQUAL = {
    "commands/history.py": {
        (
            "numbers = [value for value in visible if value is not None] or [0.0]",
            "0.0 → (1.0)",
        ): "where there are only gaps no bar has a height",
    },
    "commands/remote.py": {
        (
            "return isinstance(value, int | float) and 0 <= value < 1e11",
            "100000000000.0 → (100000000001.0)",
        ): "a choice",
    },
    "commands/screen.py": {
        ("both = Table.grid(padding=(0, 4))", "0 → (1)"): "above and below the only line nothing is added",
    },
    "commands/tables.py": {
        (
            '"endpoint": 0, "requests": 0, "rate": 70, "errors": 0, "mean ms": 100, "p50 ms": 90,',
            "0 → (1)",
        ): "no terminal is without a column",
        (
            '"time": 0, "method": 60, "path": 0, "status": 0, "ms": 50, "error": 90, "request id": 110,',
            "0 → (1)",
        ): "no terminal is without a column",
        ("for character in str(text)[: limit + 1]", "1 → (2)"): "of two too many one is enough to be cut",
    },
    "commands/terminal.py": {
        ('text = os.read(self._input, 1024).decode("utf-8", "ignore")', "1024 → (1025)"): "a choice",
    },
    "core.py": {
        (
            'if "worker" in vars(self) and not self.worker.declared.complete:',
            (
                "'worker' in vars(self) and (not self.worker.declared.complete) → ('worker' in vars(self) "
                "or not self.worker.declared.complete)"
            ),
        ): "the parts are made anew, and find the same worker",
    },
    "guard.py": {
        ("LIMIT = 1 << 28", "1 → (2)"): "a choice, far above all files",
        ("LIMIT = 1 << 28", "28 → (29)"): "a choice, far above all files",
        ("def content(descriptor: int, likely_size: int = 4096) -> bytes:", "4096 → (4097)"): "a hint",
        (
            (
                "part = os.pread(descriptor, min(max(likely_size - position, _BUFFER), LIMIT + 1 - "
                "position), position)"
            ),
            "likely_size - position → (likely_size + position)",
        ): "the size of a read",
        ("if descriptor >= limit > 0:", "0 → (1)"): "no process lives with three descriptors",
    },
    "gunicorn.py": {
        (
            "if greenlets and worker.cfg.preload_app:",
            "greenlets and worker.cfg.preload_app → (greenlets or worker.cfg.preload_app)",
        ): "what is unfrozen at the end of another worker harms nobody",
        (
            "listener, _master.listener_pid = _master.listener_pid, 0",
            "0 → (1)",
        ): "the signal that reads it is held back from here on",
        (
            "deadline = time.monotonic() + _LISTENER_END",
            "time.monotonic() + _LISTENER_END → (time.monotonic() - _LISTENER_END)",
        ): "both signals end the listener at once",
        (
            "while time.monotonic() < deadline:",
            "time.monotonic() < deadline → (time.monotonic() <= deadline)",
        ): "a patience",
        ("time.sleep(0.01)", "0.01 → (1.01)"): "a patience",
        ("time.sleep(0.01)", "time.sleep(0.01) → pass"): "a patience",
    },
    "labels.py": {
        (
            "return isinstance(error, HTTPException) and (error.code or 0) < 400",
            "0 → (1)",
        ): "both are below 400",
        (
            "def admit(self, values: tuple[str, ...], own: bool = False) -> tuple[str, ...]:",
            "False → (True)",
        ): "only families without a group leave it out",
    },
    "log/destinations.py": {
        (
            "if len(line) > _DATAGRAM:",
            "len(line) > _DATAGRAM → (len(line) >= _DATAGRAM)",
        ): "a line of exactly so many bytes is not cut",
    },
    "log/fields.py": {
        ('self._second = (-1, "")', "1 → (2)"): "no record is of a second before the epoch",
        (
            "self._second = whole, text",
            "self._second = (whole, text) → pass",
        ): "each text is made anew, which costs time and is the same",
        (
            (
                "if isinstance(value, int) and value.bit_length() < 10_000:  # Python writes no more than "
                "4,300 digits"
            ),
            "value.bit_length() < 10000 → (value.bit_length() <= 10000)",
        ): "a choice well below these digits",
        (
            (
                "if isinstance(value, int) and value.bit_length() < 10_000:  # Python writes no more than "
                "4,300 digits"
            ),
            "10000 → (10001)",
        ): "a choice well below these digits",
    },
    "log/masking.py": {
        ("for _ in range(3):", "3 → (4)"): "a choice",
    },
    "log/prose.py": {
        (
            "parts += text[at : value.start(value.lastindex or 0)], self._mask",
            "0 → (1)",
        ): "one of the groups has always matched",
    },
    "log/records.py": {
        ('getattr(observation, "environ", {})[LOG_MARK] = True', "True → (False)"): "that it is there counts",
        (
            "if record.exc_info and record.exc_info[0] is not None:",
            "0 → (1)",
        ): "there is an exception where there is its class",
    },
    "log/requestlog.py": {
        (
            "if self._destination is not None and self._handler is not None:",
            (
                "self._destination is not None and self._handler is not None → (self._destination is not "
                "None or self._handler is not None)"
            ),
        ): "neither is there without the other",
    },
    "log/rotating.py": {
        (
            "if now - self._last_look >= 1.0:  # somebody else may have moved the file",
            "now - self._last_look → (now + self._last_look)",
        ): "it looks more often",
        ("self._last_look = now", "self._last_look = now → pass"): "it looks more often",
    },
    "measure/fingerprints.py": {
        (
            "if len(self._names) >= _LIMIT:",
            "len(self._names) >= _LIMIT → (len(self._names) > _LIMIT)",
        ): "the size of a cache",
        (
            "if len(self._fingerprints) >= _LIMIT:",
            "len(self._fingerprints) >= _LIMIT → (len(self._fingerprints) > _LIMIT)",
        ): "the size of a cache",
    },
    "measure/instruments.py": {
        (
            "self._count(fingerprint, self._groups_cap, self.metrics.error_groups, own=False)",
            "False → (True)",
        ): "a group of errors has no label that could be the application's own",
    },
    "measure/middleware.py": {
        (
            "outcomes.has_tracer = outcomes.keeps and is_active()",
            "outcomes.keeps and is_active() → (outcomes.keeps or is_active())",
        ): "it asks for a trace also where there is none, or where nobody wants it",
    },
    "measure/native.py": {
        ("self._retry_at = 0.0", "0.0 → (1.0)"): "the monotonic clock of a running system is beyond both",
    },
    "measure/outcomes.py": {
        ("_NOWHERE = FlightRecorder(0)  # it stays closed", "0 → (1)"): "it stays closed",
        ("LIMIT = 10_000", "10000 → (10001)"): "the size of a cache",
        ("self.slow = inf", "self.slow = inf → pass"): "whoever keeps requests has a limit set",
        (
            "if self.has_tracer and not observation.untracked:",
            (
                "self.has_tracer and (not observation.untracked) → (self.has_tracer or not "
                "observation.untracked)"
            ),
        ): "it asks for a trace also where there is none, or where nobody wants it",
        ("self.has_tracer = False", "self.has_tracer = False → pass"): "it is set before the first request",
        ("self.has_tracer = False", "False → (True)"): "it is set before the first request",
    },
    "measure/recorder.py": {
        (
            "until = second + 1.0",
            "second + 1.0 → (second - 1.0)",
        ): "each request looks for its second anew, which costs time and finds the same",
        ("count_at = 0", "0 → (1)"): "the first request finds its second before",
        ("until = low = high = 0.0", "0.0 → (1.0)"): "the monotonic clock of a running system is beyond both",
        (
            "low, high = doubles[at + 1], doubles[at + 2]",
            "1 → (2)",
        ): "it looks at the minimum more often, and writes what is there",
        ("if amount > high:", "amount > high → (amount >= high)"): "it writes what is there",
        ("elif amount < low:", "amount < low → (amount <= low)"): "it writes what is there",
        ("self[position] = place = bucket, [0.0], 0", "0.0 → (1.0)"): "nobody reads it",
        (
            "return min(int(length[:16]), 1 << 40) if length.isdecimal() else 0",
            "16 → (17)",
        ): "a choice: a number that long is more than a terabyte",
        ("self[position] = place", "self[position] = place → pass"): "it is found anew, which costs time",
    },
    "merge/format.py": {
        ("if length < 0 or end + 16 > used:", "length < 0 → (length <= 0)"): "an empty key is corrupt, too",
        ("if length < 0 or end + 16 > used:", "0 → (1)"): "an empty key is corrupt, too",
        ("return 8 - (length + 4) % 8", "length + 4 → (length - 4)"): "8 bytes less are the same modulo 8",
    },
    "merge/merge.py": {
        ("self.is_overgrown = False", "False → (True)"): "what has read nothing begins anew",
        ("layout, stamp = self._layouts.get(key, (None, 0))", "0 → (1)"): "there is no layout either",
        (
            "or (stat.st_mtime_ns != stamp and not layout.fits(data))",
            (
                "stat.st_mtime_ns != stamp and (not layout.fits(data)) → (stat.st_mtime_ns != stamp or not "
                "layout.fits(data))"
            ),
        ): "the same layout is made anew, which costs time",
        (
            "stamp = stat.st_mtime_ns if time.time_ns() - stat.st_mtime_ns > _QUIET_NANOSECONDS else 0",
            (
                "time.time_ns() - stat.st_mtime_ns > _QUIET_NANOSECONDS → (time.time_ns() - "
                "stat.st_mtime_ns >= _QUIET_NANOSECONDS)"
            ),
        ): "a nanosecond of a choice",
        (
            "stamp = stat.st_mtime_ns if time.time_ns() - stat.st_mtime_ns > _QUIET_NANOSECONDS else 0",
            "0 → (1)",
        ): "no file is of the first nanosecond of 1970",
        ("self._layouts = layouts", "self._layouts = layouts → pass"): "it looks again, which costs time",
        ("depth = max(map(len, series.values()), default=0) or 1", "0 → (1)"): "1 is what follows from 0",
        (
            "depth = max(map(len, series.values()), default=0) or 1",
            "1 → (2)",
        ): "where all is 0 one more row of zeros adds nothing",
        (
            "columns if layout.is_sum else [tuple(x for v in row for x in (v, 0.0)) for row in columns]",
            "0.0 → (1.0)",
        ): "only the most recent of values has a time",
    },
    "merge/plan.py": {
        (
            "lengths = (len(head) + padding(len(head) - 4) for head in heads)",
            "len(head) - 4 → (len(head) + 4)",
        ): "8 bytes more are the same modulo 8",
        (
            "fields = ((len(head), padding(len(head) - 4) + 16) for head in self.heads)",
            "len(head) - 4 → (len(head) + 4)",
        ): "8 bytes more are the same modulo 8",
        (
            "lengths = (len(head) + padding(len(head) - 4) for head in self.heads)",
            "len(head) - 4 → (len(head) + 4)",
        ): "8 bytes more are the same modulo 8",
        ("if 0.0 < time < entry.created:", "0.0 → (1.0)"): "nothing began in the first second of 1970",
        (
            "return zip(row, repeat(0.0)) if self.layout.is_sum else zip(row[::2], row[1::2], strict=True)",
            "0.0 → (1.0)",
        ): "what is added up has no times",
        ("layer = [absent] * (len(self.entries) + 2)", "2 → (3)"): "one more column that nobody reads",
    },
    "merge/series.py": {
        ("@lru_cache(maxsize=1000)", "1000 → (1001)"): "the size of a cache",
    },
    "observation.py": {
        ("untracked = False", "False → (True)"): "each request says so from its beginning",
        ("failed = False", "False → (True)"): "each request says so from its beginning",
        ("reported = False", "False → (True)"): "it is read beside an exception alone, and set with it",
        ("request_size = 0", "0 → (1)"): "each request is recorded with its own before anybody reads it",
    },
    "pages/access.py": {
        ("_NO_FILE = 0, 0, 0", "0 → (1)"): "no file has this number",
        (
            "content = os.read(descriptor, _SIZE_LIMIT + 1)",
            "1 → (2)",
        ): "one byte or two beyond the limit are both too many",
    },
    "pages/checks.py": {
        (
            '_NO_RESULT = CheckResult(False, 0.0, "it has not ended yet")',
            "0.0 → (1.0)",
        ): "outsiders alone get it, and they see no durations",
    },
    "pages/endpoints.py": {
        (
            "self._complete = True",
            "self._complete = True → pass",
        ): "each call looks anew, which costs time and finds the same",
        (
            "self._complete = True",
            "True → (False)",
        ): "each call looks anew, which costs time and finds the same",
        ("setattr(rule, OWN, True)", "True → (False)"): "whether a rule has the mark counts, not its value",
    },
    "pages/figures.py": {
        ("return round(milliseconds, 6)", "6 → (7)"): "a choice",
        (
            'if labels["status"] >= "5":',
            "labels['status'] >= '5' → (labels['status'] > '5')",
        ): "no status is 5",
        (
            'if labels["status"] < "4":',
            "labels['status'] < '4' → (labels['status'] <= '4')",
        ): "no status is 4",
    },
    "pages/listener.py": {
        (
            "daemon_threads = True",
            "True → (False)",
        ): "the process ends with os._exit, which waits for no thread",
        ("os._exit(0)", "0 → (1)"): "its parent is gone then, and nobody reads the code",
        ("request_queue_size = 128", "128 → (129)"): "a choice",
        ("if since < oldest:", "since < oldest → (since <= oldest)"): "a choice, by less than a microsecond",
        (
            "self._since.pop(connection, None)",
            "self._since.pop(connection, None) → pass",
        ): "the thread of the connection takes it out too, a moment later",
    },
    "pages/overview/overview.py": {
        ("trim_blocks=True,", "True → (False)"): "more space between the tags, which no browser shows",
        ("lstrip_blocks=True,", "True → (False)"): "more space between the tags, which no browser shows",
    },
    "parent.py": {
        ("setattr(request, mark, True)", "True → (False)"): "that it is there counts",
    },
    "parsers.py": {
        ("number = low - 1", "1 → (2)"): "any number below the range is refused",
    },
    "places.py": {
        (
            "if len(self._places) >= _LIMIT:",
            "len(self._places) >= _LIMIT → (len(self._places) > _LIMIT)",
        ): "the size of a cache",
        (
            "if len(self._roots) >= _LIMIT:",
            "len(self._roots) >= _LIMIT → (len(self._roots) > _LIMIT)",
        ): "the size of a cache",
    },
    "prefork.py": {
        ("BURIAL = 2.0", "2.0 → (3.0)"): "a patience",
    },
    "routes/bottle.py": {
        ("@lru_cache(10_000)", "10000 → (10001)"): "the size of a cache",
    },
    "routes/django.py": {
        ("@lru_cache(10_000)", "10000 → (10001)"): "the size of a cache",
    },
    "routes/falcon.py": {
        ("@lru_cache(10_000)", "10000 → (10001)"): "the size of a cache",
    },
    "routes/frameworks.py": {
        ("by_rule = True", "True → (False)"): "each request resolves its labels anew, which costs time",
        ("return route", "return route → return None"): "as above",
    },
    "routes/py4web.py": {
        ("@lru_cache(10_000)", "10000 → (10001)"): "the size of a cache",
    },
    "routes/pyramid.py": {
        (
            "setattr(match, ROUTE, template)",
            "setattr(match, ROUTE, template) → pass",
        ): "each request has a template of its own, which costs time and is the same",
    },
    "routes/template.py": {
        ("@lru_cache(1000)", "1000 → (1001)"): "the size of a cache",
    },
    "routes/web2py.py": {
        ("@lru_cache(10_000)", "10000 → (10001)"): "the size of a cache",
    },
    "scrape/encoding.py": {
        (
            'return Format(content_type, False, escaping, choose_encoder("")[0], protobuf=True)',
            "False → (True)",
        ): "its text is only tried, for what can be written",
        (
            "if form.openmetrics and exemplars:",
            "form.openmetrics and exemplars → (form.openmetrics or exemplars)",
        ): "the plain text writes the value alone, as without; and of no exemplars there are no lines",
    },
    "scrape/exposition.py": {
        ("for part in self._source.parts(details=False):", "False → (True)"): "no text shows them",
        (
            "return gzip.compress(body, _GZIP_LEVEL, mtime=0) if gzips else body",
            "0 → (1)",
        ): "no time in a header, or another",
    },
    "scrape/histogram.py": {
        (
            "_BUCKETS = {count: _bucket(count) for count in range(4096)}",
            "4096 → (4097)",
        ): "the size of a table",
        (
            "_DELTAS = {difference: _delta(difference) for difference in range(-1024, 1024)}",
            "1024 → (1025)",
        ): "the size of a table",
        ("group.shape = shape", "group.shape = shape → pass"): "it is made anew, which costs time",
        (
            "examples = exemplars and not exemplars.keys().isdisjoint(line + at for at in shape.buckets)",
            (
                "exemplars and (not exemplars.keys().isdisjoint((line + at for at in shape.buckets))) → "
                "(exemplars or not exemplars.keys().isdisjoint((line + at for at in shape.buckets)))"
            ),
        ): "a message that could be kept is made anew",
        ("shape.last = state, message", "shape.last = (state, message) → pass"): "it is made anew",
        (
            "return seconds - 1.0 if seconds > time() - _START_SECONDS else 0.0",
            "seconds > time() - _START_SECONDS → (seconds >= time() - _START_SECONDS)",
        ): "an instant",
    },
    "scrape/registered.py": {
        ("self._created = False", "False → (True)"): "the first read finds no family, and makes all anew",
        (
            'return [getattr(child, "_created", 0.0) for child in self._children]',
            "0.0 → (1.0)",
        ): "gauges alone have none, and their messages no place for one",
    },
    "scrape/sources.py": {
        (
            "if any(name in selection for group in family.groups[:1] for name, _ in group.lines)",
            "1 → (2)",
        ): "all groups have the same names",
    },
    "scrape/wire.py": {
        ("if 128 <= number < 16_384:", "128 → (129)"): "the longer way gives the same",
        (
            "_SMALL += [varint(number) for number in range(1024)]",
            "_SMALL += [varint(number) for number in range(1024)] → pass",
        ): "numbers are made anew, which costs time",
        ("_SMALL += [varint(number) for number in range(1024)]", "1024 → (1025)"): "the size of a table",
    },
    "servers.py": {
        ("sys.meta_path.insert(0, _Watcher(changes))", "0 → (1)"): "before the finder of files too",
    },
    "settings.py": {
        (
            "class SettingsArguments(TypedDict, total=False):",
            "False → (True)",
        ): "a declaration: the type checkers notice it",
    },
    "store/archive.py": {
        (
            'elif total is None or (value < total[0] if stem == "gauge_min" else value > total[0]):',
            "value < total[0] → (value <= total[0])",
        ): "of two equal values either will do",
        (
            'elif total is None or (value < total[0] if stem == "gauge_min" else value > total[0]):',
            "value > total[0] → (value >= total[0])",
        ): "of two equal values either will do",
        (
            "if abs(value) < abs(partial):",
            "abs(value) < abs(partial) → (abs(value) <= abs(partial))",
        ): "the sum of two that are as large is exact in either order",
    },
    "store/compaction.py": {
        (
            "contents.append(self._contents.of(file, descriptor, alive=True))",
            "True → (False)",
        ): "a file without content has no label sets, whether it is empty or corrupt",
    },
    "store/contents.py": {
        (
            "header = os.pread(descriptor, 8, 0)",
            "8 → (9)",
        ): "nobody writes the ninth byte before the first eight",
        (
            "return time.time() - os.fstat(descriptor).st_mtime < _CREATION_SECONDS",
            (
                "time.time() - os.fstat(descriptor).st_mtime < _CREATION_SECONDS → (time.time() - "
                "os.fstat(descriptor).st_mtime <= _CREATION_SECONDS)"
            ),
        ): "a patience",
    },
    "store/directory.py": {
        (
            "if is_alive and pid < os.getpid():",
            "pid < os.getpid() → (pid <= os.getpid())",
        ): "of this process's own number only dead files come here, which are not alive",
        (
            "return os.stat(LOCK, dir_fd=self._files.directory).st_mtime > posix.start_of(pid)",
            (
                "os.stat(LOCK, dir_fd=self._files.directory).st_mtime > posix.start_of(pid) → "
                "(os.stat(LOCK, dir_fd=self._files.directory).st_mtime >= posix.start_of(pid))"
            ),
        ): "the start of a process is known to a hundredth of a second",
    },
    "store/files.py": {
        ("PATIENCE = 1.0", "1.0 → (2.0)"): "a patience",
        ("self.directory = -1", "1 → (2)"): "no descriptor either",
        (
            "self.directory = -1",
            "self.directory = -1 → pass",
        ): "nobody reads it outside of `enter`, which sets it",
    },
    "store/master.py": {
        (
            'holder = os.pread(master, 20, 0).decode("ascii", "replace").strip()',
            "20 → (21)",
        ): "a process id has fewer digits",
        ("os.ftruncate(master, 0)", "0 → (1)"): "the byte that is left is overwritten",
        (
            "is_own = file.pid == os.getpid() and not promises_lock(os.pread(descriptor, 8, 0))",
            "8 → (9)",
        ): "the ninth byte is no part of the promise",
    },
    "store/workerfile.py": {
        ("_lock = -1", "1 → (2)"): "no descriptor either",
        ("self._lock = -1", "1 → (2)"): "no descriptor either",
        ("self._lock, lock = lock, -1", "1 → (2)"): "no descriptor either",
        (
            "descriptor, lock = guard.regular(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, at), -1",
            "1 → (2)",
        ): "no descriptor either",
        (
            "if self._m is not None:",
            "self._m is not None → (self._m is None)",
        ): "the memory goes with its last reference all the same",
        ("self._m.close()", "self._m.close() → pass"): "the memory goes with its last reference all the same",
        (
            "if self._lock >= 0:",
            "self._lock >= 0 → (self._lock > 0)",
        ): "0 is no lock: the directory is opened before it",
        ("if self._lock >= 0:", "0 → (1)"): "0 is no lock: the directory is opened before it",
        (
            "if self._lock < 0 or os.fstat(self._lock).st_nlink:",
            "self._lock < 0 → (self._lock <= 0)",
        ): "0 is no lock: the directory is opened before it",
        (
            "if self._lock < 0 or os.fstat(self._lock).st_nlink:",
            "0 → (1)",
        ): "0 is no lock: the directory is opened before it",
        (
            "if self._lock < 0 or not os.path.samestat(os.fstat(descriptor), os.fstat(self._lock)):",
            "self._lock < 0 → (self._lock <= 0)",
        ): "0 is no lock: the directory is opened before it",
        (
            "if self._lock < 0 or not os.path.samestat(os.fstat(descriptor), os.fstat(self._lock)):",
            "0 → (1)",
        ): "0 is no lock: the directory is opened before it",
        ("if lock >= 0:", "lock >= 0 → (lock > 0)"): "0 is no lock: the directory is opened before it",
        ("if lock >= 0:", "0 → (1)"): "0 is no lock: the directory is opened before it",
        (
            "if end > self._capacity:",
            "end > self._capacity → (end >= self._capacity)",
        ): "it grows to the size that it has",
        ("for value in early[:1]:", "1 → (2)"): "the first one has opened the files",
        ("file.close()", "file.close() → pass"): "the file goes with its last reference all the same",
        ("def read(descriptor: int, likely_size: int = 0) -> bytes:", "0 → (1)"): "less than a page either",
        (
            "part = os.pread(descriptor, used - len(data), len(data))",
            "used - len(data) → (used + len(data))",
        ): "what is too much is cut off",
    },
    "worker/deaths.py": {
        (
            "counted: bool = field(default=False, kw_only=True)",
            "True → (False)",
        ): "a declaration, as that a dataclass is frozen",
        (
            "os.pwrite(descriptor, bytes(8), OWNER_AT)",
            "8 → (9)",
        ): "nobody reads the prefix of a ring without an owner, and the next one writes it anew",
    },
    "worker/errorgroups.py": {
        (
            "self._current_slots.add(number)",
            "self._current_slots.add(number) → pass",
        ): "each error writes the version anew, which costs time and is the same",
        ("stale = min(self._slots, key=lambda own: last.get(own, 0.0))", "0.0 → (1.0)"): "as long ago",
        (
            "return self._slots.pop(stale) if last.get(stale, 0.0) <= oldest else None",
            "0.0 → (1.0)",
        ): "as long ago",
        ("_NONE = mmap.mmap(-1, 1)", "1 → (2)"): "nobody reads it",
        (
            "content = os.pread(descriptor, SIZE + 1, 0)",
            "1 → (2)",
        ): "one byte too many tells a file of another size as well as two",
        ("os.ftruncate(descriptor, 0)", "0 → (1)"): "the byte that is left is overwritten",
    },
    "worker/errorslots.py": {
        ('*_decode(texts).split("\\0", 5),', "5 → (6)"): "no text has a zero byte",
        ('*[""] * 5,', "5 → (6)"): "five of the six are missing at most",
    },
    "worker/flightrecorder.py": {
        (
            '_holders = getattr(sys, "getrefcount", lambda _: 5)  # PyPy counts no references',
            "5 → (6)",
        ): "either says that somebody else knows the request",
        ("self._most = max(recent + 1, _READ_LIMIT)", "1 → (2)"): "a choice",
        ("self._release = weakref.finalize(self, forks.give_up, -1)", "1 → (2)"): "no descriptor either",
        (
            "if former is not None and former.header.birth <= self._birth:",
            "former.header.birth <= self._birth → (former.header.birth < self._birth)",
        ): "of two equal births either will do",
        (
            "former = Content.of(os.pread(descriptor, header.length + 1, 0))",
            "1 → (2)",
        ): "one byte too many tells a file of another size as well as two",
        ("os.ftruncate(descriptor, 0)", "0 → (1)"): "the byte that is left is overwritten",
        (
            (
                "since = max((min(map(_end, kept)) for content, kept in rings if kept and "
                "content.has_lost), default=0.0)"
            ),
            "0.0 → (1.0)",
        ): "no request ended in the first second of 1970",
    },
    "worker/losses.py": {
        ("if version in ((0, 0), self._version):", "0 → (1)"): "a file that is not there has no deaths",
        ("self._version = (0, 0)", "0 → (1)"): "no file with deaths has such a time or size",
        ("self._next_look = 0.0", "0.0 → (1.0)"): "the machine has been up for longer",
    },
    "worker/peers.py": {
        (
            "fcntl.lockf(_file.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, _byte(*place))",
            "1 → (2)",
        ): "the next byte is that of one address in 2 to the power of 56",
        ('query = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)', "1 → (2)"): "as above",
        (
            'query = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)',
            "0 → (1)",
        ): "the system ignores the process of a question",
        ("self._descriptor = -1", "1 → (2)"): "no descriptor is negative",
    },
    "worker/requests.py": {
        ("COUNTED = -2.0", "2.0 → (3.0)"): "a choice of a number that stands for nothing else",
        (
            "starts = os.pread(descriptor, header.first - HEADER, HEADER)",
            "header.first - HEADER → (header.first + HEADER)",
        ): "the first record, which follows, stays empty",
    },
    "worker/sampler.py": {
        ("WALKS = 64", "64 → (65)"): "a choice",
        (
            "if len(old) <= WALKS:",
            "len(old) <= WALKS → (len(old) < WALKS)",
        ): "of exactly so many all have their turn, in another order",
        ("self._next = 0", "0 → (1)"): "all have their turn, in another order",
        (
            "self._next = first + WALKS",
            "first + WALKS → (first - WALKS)",
        ): "all have their turn, in another order",
        (
            'return frame or frames.get(getattr(thread.parent, "thread_ident", 0))',
            "0 → (1)",
        ): "no thread has such an ident",
        ("self._late_ticks: deque[tuple[float, float]] = deque(maxlen=16)", "16 → (17)"): "a choice",
    },
    "worker/slots.py": {
        ("self._descriptor = -1", "1 → (2)"): "no descriptor is negative",
        (
            "if self._descriptor >= 0:",
            "self._descriptor >= 0 → (self._descriptor > 0)",
        ): "the directory is open while the ring is opened, so the ring is never the first descriptor",
        ("if self._descriptor >= 0:", "0 → (1)"): "as above",
        ("size = max(_INITIAL, 1 << (len(content) - 1).bit_length())", "1 → (2)"): "a choice of the room",
        (
            "size = max(_INITIAL, 1 << (len(content) - 1).bit_length())",
            "len(content) - 1 → (len(content) + 1)",
        ): "a choice of the room",
        (
            "os.ftruncate(descriptor, 0)  # readers see nothing until the new content is there",
            "0 → (1)",
        ): "a length of one byte has no entry, and the new one overwrites it",
        ("if end <= size:", "end <= size → (end < size)"): "a choice of the room",
        ("size = max(2 * size, end)", "2 → (3)"): "a choice of the room",
        (
            'return content[: _LENGTH.unpack_from(content)[0]] if len(content) >= 8 else b""',
            "len(content) >= 8 → (len(content) > 8)",
        ): "eight bytes have no entry",
        (
            'return content[: _LENGTH.unpack_from(content)[0]] if len(content) >= 8 else b""',
            "8 → (9)",
        ): "eight bytes have no entry",
        (
            (
                'latest = max(s for s in (0.0, *array("d", entries[start:end])[::SLOT]) if s <= '
                "time.monotonic())"
            ),
            "s <= time.monotonic() → (s < time.monotonic())",
        ): "the clock has more digits than a second",
        (
            "oldest = max(groups[-1][0] - WINDOW, 0.0) if groups else 0.0",
            "0.0 → (1.0)",
        ): "without groups nobody asks, and the machine has been up for longer",
    },
    "worker/slowest.py": {
        ("self._retry_at = 0.0", "0.0 → (1.0)"): "the machine has been up for longer",
        ("os.ftruncate(file, 0)", "0 → (1)"): "the magic bytes overwrite it",
        (
            "if own < EACH and len(recent) < RECORDS:",
            "own < EACH → (own <= EACH)",
        ): "an eleventh record is not read, and the first to give way",
        (
            "for slot in range((len(content) - _HEADER_SIZE) // _RECORD_SIZE):",
            "len(content) - _HEADER_SIZE → (len(content) + _HEADER_SIZE)",
        ): "a record whose end is missing does not fit its checksum unless that end is empty",
    },
    "worker/spots.py": {
        ("inner_at = own_at = -1", "1 → (2)"): "nobody uses it without a place",
        (
            "if len(self._spots) >= _LIMIT:",
            "len(self._spots) >= _LIMIT → (len(self._spots) > _LIMIT)",
        ): "a choice",
        (
            (
                "position = next(islice(place.code.co_positions(), max(instruction, 0) // 2, None), "
                "(None,) * 4)"
            ),
            "0 → (1)",
        ): "half of one is none",
        (
            (
                "position = next(islice(place.code.co_positions(), max(instruction, 0) // 2, None), "
                "(None,) * 4)"
            ),
            "4 → (5)",
        ): "a position that is unknown has no text in either case",
    },
    "worker/stackring.py": {
        ("RECORDS = 64", "64 → (65)"): "a choice",
        ("self._descriptor = -1", "1 → (2)"): "no descriptor is negative",
        (
            "if self._descriptor < 0:",
            "self._descriptor < 0 → (self._descriptor <= 0)",
        ): "the directory is open while the ring is opened, so the ring is never the first descriptor",
        ("if self._descriptor < 0:", "0 → (1)"): "as above",
        ("self._retry_at = 0.0", "0.0 → (1.0)"): "the machine has been up for longer",
        ("os.ftruncate(descriptor, 0)", "0 → (1)"): "the header overwrites it",
        (
            "if len(content) < _header.size or not content.startswith(_MAGIC):",
            "len(content) < _header.size → (len(content) <= _header.size)",
        ): "a header alone has no records",
    },
    "worker/worker.py": {
        ("_second = -1", "1 → (2)"): "no second is negative",
        ("self._second = -1", "1 → (2)"): "no second is negative",
        ("self._refusals = files.refusals() if files else 0", "0 → (1)"): "nobody asks without files",
        (
            "self._refusals = self._files.refusals() if self._files else 0",
            "0 → (1)",
        ): "nobody asks without files",
        ("self._levels: deque[str] = deque(maxlen=100_000)", "100000 → (100001)"): "a choice",
        (
            "self._notes: deque[tuple[str, BaseException]] = deque(maxlen=10_000)",
            "10000 → (10001)",
        ): "a choice",
        ("removal = False", "False → (True)"): "without files there is no directory to look for room in",
    },
    "worker/writers.py": {
        ("outcome.packed = names", "outcome.packed = names → pass"): "it costs time",
    },
}
