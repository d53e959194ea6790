"""Ports for programs that a test starts."""

from tests.rig.network import PORTS, free_ports


def test_a_port_is_given_once() -> None:
    """A program needs a while until it listens; meanwhile no other test may get its port."""
    ports = [port for _ in range(20) for port in free_ports(10)]

    assert len(set(ports)) == len(ports)
    assert set(ports) <= set(PORTS)
