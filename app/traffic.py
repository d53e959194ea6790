"""Customers who order, look around and make mistakes, so that every panel has data: `python -m app.traffic`.

TARGET               address of the service (http://127.0.0.1:8000)
TRAFFIC_USERS        customers, each with three requests a second (5); with 0 there is no traffic
TRAFFIC_ERROR_RATIO  share of requests that ask for a 5xx (0.0002); 0.05 makes the error alerts fire
TRAFFIC_HEARTBEAT    file that this program touches every five seconds, for a health check (none)

SIGTERM and SIGINT end it.
"""

from __future__ import annotations

# ruff: noqa: S311 -- random numbers here are no secrets
import logging
import os
import random
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import gevent
import locust
from gevent.event import Event
from locust.env import Environment

BEAT = 5.0  # seconds

log = logging.getLogger("traffic")

Number = TypeVar("Number", int, float)


class Customer(locust.FastHttpUser):
    """A customer sends three requests a second, in the proportions of MIX."""

    wait_time = locust.constant_throughput(3)
    error_ratio: ClassVar[float]
    order_id: int = 1  # from the list of orders

    @locust.task
    def act(self) -> None:
        if random.random() < self.error_ratio:
            self.cause_error()
        else:
            (action,) = random.choices(list(self.MIX), list(self.MIX.values()))
            action(self)

    def cause_error(self) -> None:
        self.client.get(random.choice(("/test/error", "/test/server-error")))

    def open_start_page(self) -> None:
        self.client.get("/", headers={"Accept": "text/html"})

    def browse(self) -> None:
        with self.client.get("/orders?limit=10", name="/orders", catch_response=True) as response:
            if response.status_code == 200 and (orders := response.json()["orders"]):
                self.order_id = random.choice(orders)["id"]

    def look(self) -> None:
        self.client.get(f"/orders/{self.order_id}", name="/orders/[id]")

    def order(self) -> None:
        item = random.choice(("cake", "coffee", "coffee", "sandwich", "tea"))
        self.client.post("/orders", json={"item": item, "quantity": random.randint(1, 12)})

    def ask(self) -> None:
        self.client.get("/test/normal")

    def ask_slow(self) -> None:
        self._wait(random.uniform(0.02, 0.3))

    def ask_too_slow(self) -> None:
        self._wait(random.uniform(0.6, 2.0))

    def _wait(self, seconds: float) -> None:
        self.client.get(f"/test/slow?seconds={seconds:.3f}", name="/test/slow")

    def stream(self) -> None:
        self.client.get("/test/stream")

    def hang_up(self) -> None:
        """Close the connection after the headers."""
        response = self.client.get("/test/stream", stream=True, headers={"Connection": "close"})
        if response.status_code:  # 0 means that there is no connection to close
            response.release()

    def order_nonsense(self) -> None:
        body = random.choice(({"item": "tea", "quantity": 0}, {"item": "moon", "quantity": 1}, ["tea"]))
        self.client.post("/orders", json=body)

    def look_for_unknown(self) -> None:
        self.client.get("/orders/999999999", name="/orders/[id]")

    def follow_dead_link(self) -> None:
        self.client.get("/test/notfound")

    def scan(self) -> None:
        """Ask for a path that no route matches, as scanners do."""
        path = random.choice(("wp-login.php", "admin", ".env"))
        self.client.get(f"/{random.randrange(10**6)}/{path}", name="(unmatched)")

    def use_wrong_method(self) -> None:
        self.client.delete("/orders")

    # Percent. About 4 % are answered with 4xx; 0.5 % exceed the 0.5 s of the SLO, too few for its alerts.
    MIX: ClassVar[dict[Callable[[Customer], None], float]] = {
        browse: 40,
        look: 20,
        order: 15,
        open_start_page: 7,
        ask: 10,
        ask_slow: 3.3,
        ask_too_slow: 0.3,
        stream: 0.2,
        hang_up: 0.2,
        order_nonsense: 0.9,
        look_for_unknown: 1,
        follow_dead_link: 1,
        scan: 0.6,
        use_wrong_method: 0.5,
    }


def main() -> None:
    """Send traffic until a signal arrives; an invalid setting ends it with a line that names the setting."""
    target = os.environ.get("TARGET", "http://127.0.0.1:8000")
    if not re.fullmatch(r"https?://[^/\s]+/?", target):
        raise SystemExit(f"TARGET is {target!r}: give an address such as http://127.0.0.1:8000")
    users = _number("TRAFFIC_USERS", 5, largest=1000)
    Customer.error_ratio = _number("TRAFFIC_ERROR_RATIO", 0.0002, largest=1.0)
    heartbeat = os.environ.get("TRAFFIC_HEARTBEAT")

    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stop.set)

    environment = Environment(user_classes=[Customer], host=target)
    runner = environment.create_local_runner()
    failures = 0

    def count(response: Any, **_: object) -> None:
        nonlocal failures
        failures += response.status_code == 0

    environment.events.request.add_listener(count)  # type: ignore[no-untyped-call]
    if users:
        runner.start(users, spawn_rate=users)
    log.info("%d users for %s, %g of the requests ask for a 5xx", users, target, Customer.error_ratio)
    is_over = False
    while not is_over:
        if heartbeat:
            Path(heartbeat).touch()
        is_over = stop.wait(BEAT)
        if failures:
            log.warning("%d requests got no answer from %s", failures, target)
            failures = 0
    runner.quit()


def _number(name: str, default: Number, largest: Number) -> Number:
    text = os.environ.get(name, str(default))
    try:
        number = type(default)(text)
    except ValueError:
        number = type(default)(-1)
    if not 0 <= number <= largest:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise SystemExit(f"{name} is {text!r}: give {kind} from 0 to {largest}")
    return number


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    main()
