"""What the other tests rely on when they run containers."""

from contained import Container, Network, project

LUMINATE = "/usr/local/bin/luminate"
OPEN = {"LUMINATE_AUTH__FORCE_UNAUTHENTICATED": "true"}


def test_the_exit_code_and_both_streams_come_out(image):
    with Container(image, ["no-such-command"]) as container:
        assert container.wait() == 2
        assert container.stdout == "" and "no-such-command" in container.stderr
        assert not container.running and container.stop() == 2


def test_a_command_replaces_the_entrypoint_and_its_arguments(image):
    with Container(image, command=[LUMINATE, "sleep", "600"]) as container:
        assert container.exec([LUMINATE, "version"]).stdout.startswith("luminate ")
        assert container.exec([LUMINATE, "no-such-command"]).returncode == 2
        container.kill()
        assert container.wait() == 137


def test_the_root_is_read_only_and_what_is_mounted_is_as_it_says(image, tmp_path):
    (tmp_path / "in").mkdir()

    def made(where, **options):
        """Whether a server can keep its data there."""
        env = {**OPEN, "LUMINATE_STORAGE__EMBEDDED__DATA_DIR": f"{where}/data"}
        with Network() as network, Container(image, env=env, network=network, **options) as container:
            while container.running:
                if container.healthy():
                    return True
            assert "ead-only" in container.stderr or "denied" in container.stderr, container.stderr
            return False

    assert not made("/var/lib/luminate")
    assert made("/var/lib/luminate", read_only=False)
    assert not made("/usr", read_only=False)
    assert made("/tmp", tmpfs=["/tmp"])
    assert made("/in", mounts={"/in": (tmp_path / "in", "rw")})
    assert not made("/in", mounts={"/in": (tmp_path / "in", "ro")})


def test_files_are_changed_all_at_once_as_kubernetes_does(image, tmp_path):
    good = "server: {listen: '127.0.0.1:1'}\n"
    folder = project(tmp_path / "config", {"luminate.yaml": good, "overrides.yaml": "overrides: {}\n"})
    check = [LUMINATE, "check", "config", "/etc/luminate/luminate.yaml"]
    with Container(image, ["sleep", "600"], mounts={"/etc/luminate": (folder, "ro")}) as container:
        assert container.exec(check).returncode == 0
        project(folder, {"luminate.yaml": "servr: {}\n", "overrides.yaml": "overrides: {}\n"})
        assert "servr" in container.exec(check).stderr


def test_networks_are_apart(image, tmp_path):
    """The same ports twice, and neither is the machine's."""
    for name in ["a", "b"]:
        (tmp_path / name).mkdir()
    with Network() as a, Network() as b:
        one = Container(image, env=OPEN, network=a, mounts={"/var/lib/luminate": (tmp_path / "a", "rw")})
        two = Container(image, env=OPEN, network=b, mounts={"/var/lib/luminate": (tmp_path / "b", "rw")})
        with one, two:
            assert one.running and two.running and one.pid != two.pid
            assert "127.0.0.1" in a.run("ip", "address").stdout


def test_too_much_memory_is_the_end(image, tmp_path):
    mounts = {"/var/lib/luminate": (tmp_path, "rw")}
    with Network() as network, Container(image, env=OPEN, network=network, mounts=mounts, memory=4 << 20) as container:
        assert container.wait() == 137, container.stderr
