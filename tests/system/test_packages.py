"""Packages, installed and run in a root that holds nothing else; units, completions and deployment files, each checked
by what would read it.

The root is debian_root.py's: what is essential and what ours depend on, no more, so that a dependency that is not
declared is missing there.
"""
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

from debian_root import output, root_for_packages
from lab import BRIGADE, MODEL, SOURCE, WORKER, Worker, SkipTest, brigade, free_ports, keygen, main, patience, temporary_folder

PACKAGING = os.path.join(SOURCE, "packaging")


# ---- The service manager --------------------------------------------------------------------------------------------

def heard(listener, until):
    """What a service manager is told, up to the message that holds `until`."""
    messages = []
    listener.settimeout(patience())
    while not any(until in m for m in messages):
        messages.append(listener.recv(4096).decode())
    return messages


def test_worker_tells_the_service_manager():
    folder = temporary_folder()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(os.path.join(folder, "notify"))
    coordinator = keygen(os.path.join(folder, "coordinator.key"))
    worker = Worker(folder, "w", [coordinator], env={"NOTIFY_SOCKET": os.path.join(folder, "notify"), "WATCHDOG_USEC": "1200000"})
    messages = heard(listener, "READY=1")
    assert len(messages) <= 2 and "STATUS=" in messages[-1], messages
    for _ in range(3):
        heard(listener, "WATCHDOG=1")
    worker.kill(signal.SIGSTOP)  # a worker that is stuck must fall silent
    time.sleep(0.3)
    listener.setblocking(False)
    try:
        while True:
            listener.recv(4096)
    except BlockingIOError:
        pass
    time.sleep(1)
    try:
        raise AssertionError(f"a stopped worker said {listener.recv(4096)}")
    except BlockingIOError:
        pass
    worker.kill(signal.SIGCONT)
    heard(listener, "WATCHDOG=1")
    worker.kill(signal.SIGTERM)
    heard(listener, "STOPPING=1")
    assert worker.process.wait(patience()) == 0


def test_units_are_understood():
    if not shutil.which("systemd-analyze"):
        raise SkipTest("no systemd-analyze here")
    folder = temporary_folder()
    for unit in glob.glob(os.path.join(PACKAGING, "*.service")):
        text = open(unit).read()
        for program in re.findall(r"^Exec\w+=\+?(/\S+)", text, re.M):
            text = text.replace(program, "/bin/true")
        text = re.sub(r"^Documentation=.*\n", "", text, flags=re.M)
        copy = os.path.join(folder, os.path.basename(unit))
        open(copy, "w").write(text)
        done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
        said = [line for line in done.stderr.splitlines() if os.path.basename(unit) in line]
        assert done.returncode == 0 and not said, done.stderr
        security = output("systemd-analyze", "security", "--offline=true", "--threshold=25", copy)
        assert "OK" in security.splitlines()[-1], security.splitlines()[-1]
        for setting in ("NoNewPrivileges=yes", "ProtectSystem=strict", "User=brigade", "DynamicUser=yes", "Type=notify", "CacheDirectory=brigade"):
            assert re.search(f"^{setting}$", text, re.M), f"{unit} lacks {setting}"


# ---- Completions ----------------------------------------------------------------------------------------------------

def flags_of(program, *words):
    text = output(program, *words, "--help")
    options = [line for line in text.split("xample:")[0].splitlines() if re.match(r"^ {2,6}-", line)]
    return {flag for line in options for flag in re.findall(r"(?:^|[ ,])(--[a-z][a-z0-9-]*)", re.split(r"(?<=\S) {2,}", line, maxsplit=1)[0])}


def test_completions_know_every_flag():
    commands = re.findall(r"^  (\w+) ", output(BRIGADE, "--help").split("Commands:")[1].split("\n\n")[0], re.M)
    assert len(commands) >= 13, commands
    wanted = {("brigade", c): flags_of(BRIGADE, c) for c in commands}
    wanted["brigade-worker", None] = flags_of(WORKER)
    assert all("--help" in flags for flags in wanted.values()), wanted
    folder = temporary_folder()
    for shell in ("bash", "zsh", "fish"):
        for name, program in (("brigade", BRIGADE), ("brigade-worker", WORKER)):
            script = output(os.path.join(SOURCE, "scripts", "completions"), shell, program)
            path = os.path.join(folder, f"{name}.{shell}")
            open(path, "w").write(script)
            if shutil.which(shell):
                output(shell, "-n", path)
            for (owner, command), flags in wanted.items():
                part = script if command is None or owner != name else {
                    "bash": re.search(rf"^    {command}\) options=.*$", script, re.M),
                    "zsh": re.search(rf"^    {command}\)$.*?^        ;;$", script, re.M | re.S),
                    "fish": "\n".join(re.findall(rf"^complete .*from {command}' .*$", script, re.M))}[shell]
                part = part if isinstance(part, str) else part and part[0]
                assert owner != name or part, f"{shell}: nothing about {command}"
                for flag in flags if owner == name else ():
                    word = f"-l {flag[2:]}" if shell == "fish" else flag
                    assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", part), f"{shell}: {name} {command} lacks {flag}"
    # What bash would offer when a person presses Tab.
    def offers(*words):
        asked = " ".join(f"'{w}'" for w in words)
        return set(output("bash", "-c", f"source {folder}/brigade.bash; COMP_WORDS=({asked}) COMP_CWORD={len(words) - 1}; "
                                        "_brigade; printf '%s\\n' \"${COMPREPLY[@]}\"").split())
    assert offers("brigade", "ser") == {"serve"}
    assert offers("brigade", "serve", "--po") == {"--port"}
    assert offers("brigade", "run", "--kv-type", "") == {"f16", "q8", "f32"}
    assert offers("brigade", "keygen", "--po") == set()
    model = os.path.join(folder, "some.gguf")  # alone: beside a model that was served lies the file of its hashes
    open(model, "w").close()
    assert offers("brigade", "inspect", model[:-3]) == {model}
    if shutil.which("fish"):
        def fish(line):
            said = output("fish", "--no-config", "-c", f"source {folder}/brigade.fish; complete -C '{line}'")
            return {word.split("\t")[0] for word in said.splitlines()}
        assert fish("brigade ser") == {"serve"} and fish("brigade serve --po") == {"--port"}
        assert fish("brigade run --kv-type ") >= {"f16", "q8", "f32"}


def test_manual_pages_are_whole():
    """Each option that --help tells has its place in the page, and the pages are set without a complaint."""
    commands = re.findall(r"^  (\w+) ", output(BRIGADE, "--help").split("Commands:")[1].split("\n\n")[0], re.M)
    for name, wanted in (("brigade", set().union(*(flags_of(BRIGADE, c) for c in commands))), ("brigade-worker", flags_of(WORKER))):
        path = os.path.join(SOURCE, "man", f"{name}.1")
        text = re.sub(r"\\f[BIRP]", " ", open(path).read().replace("\\-", "-"))
        lacking = {flag for flag in wanted - {"--help"} if not re.search(rf"(?<![\w-]){flag}(?![\w-])", text)}
        assert not lacking, f"{path} lacks {', '.join(sorted(lacking))}; scripts/completions man PROGRAM writes the section"
        for tool in (["mandoc", "-T", "lint", "-W", "warning"], ["groff", "-man", "-ww", "-z", "-Tutf8"]):
            if shutil.which(tool[0]):
                done = subprocess.run([*tool, path], capture_output=True, text=True)
                assert done.returncode == 0 and not done.stdout + done.stderr, done.stdout + done.stderr


# ---- Deployment files -----------------------------------------------------------------------------------------------

def test_daemonset_is_one():
    try:
        import yaml
    except ImportError:
        raise SkipTest("no python3-yaml here") from None
    documents = {d["kind"]: d for d in yaml.safe_load_all(open(os.path.join(PACKAGING, "deploy", "daemonset.yaml")))}
    assert set(documents) == {"Namespace", "ConfigMap", "DaemonSet"}
    daemon, settings = documents["DaemonSet"], documents["ConfigMap"]
    assert daemon["apiVersion"] == "apps/v1" and daemon["metadata"]["namespace"] == documents["Namespace"]["metadata"]["name"]
    labels = daemon["spec"]["selector"]["matchLabels"]
    pod = daemon["spec"]["template"]
    assert labels.items() <= pod["metadata"]["labels"].items(), "the selector must find its own pods"
    spec = pod["spec"]
    volumes = {v["name"] for v in spec["volumes"]}
    folder = temporary_folder()
    worker_yaml = settings["data"]["worker.yaml"].replace("REPLACE-BY-THE-COORDINATORS-KEY-40-CHARS", keygen(os.path.join(folder, "c.key")))
    known = flags_of(WORKER)
    for container in spec["initContainers"] + spec["containers"]:
        assert {m["name"] for m in container["volumeMounts"]} <= volumes
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]} and not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["command"][0] == "/usr/bin/brigade-worker"
        assert {w for w in container["command"] if w.startswith("--")} <= known
    ports = {p["name"]: p["containerPort"] for p in spec["containers"][0]["ports"]}
    assert ports == {"control": 7700, "data": 7701, "weights": 7702} and re.search(r"^listen: tcp://0\.0\.0\.0:7700$", worker_yaml, re.M)
    for probe in ("readinessProbe", "livenessProbe"):
        assert spec["containers"][0][probe]["tcpSocket"]["port"] in ports
    paths = {m["mountPath"] for m in spec["containers"][0]["volumeMounts"]}
    for path in re.findall(r"/var/\S*?[a-z]+(?=[\]\s/])", worker_yaml):
        assert any(path.startswith(p) or p.startswith(path) for p in paths), f"{path} is mounted nowhere"
    # The worker itself reads its settings.
    for path, own in (("/var/lib/brigade/keys/node.key", "node.key"), ("0.0.0.0:7700", "127.0.0.1:*")):
        worker_yaml = worker_yaml.replace(path, own)
    open(os.path.join(folder, "worker.yaml"), "w").write(worker_yaml)
    assert len(output(WORKER, "--keygen", "--config", os.path.join(folder, "worker.yaml")).strip()) == 40


def test_containerfile_is_one():
    text = open(os.path.join(PACKAGING, "deploy", "Containerfile")).read()
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    steps = [line.split(None, 1) for line in lines]
    words = {"FROM", "ARG", "COPY", "RUN", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
    assert {s[0] for s in steps} <= words and steps[0][0] == "FROM" and all(len(s) == 2 for s in steps)
    by = dict(steps)
    for run in (rest for word, rest in steps if word == "RUN"):
        output("sh", "-n", "-c", run)
        assert "rm -rf" in run and "node.key" in run, "a key must not stay in the image"
    entry, command, volumes = (json.loads(by[w]) for w in ("ENTRYPOINT", "CMD", "VOLUME"))
    assert entry == ["/usr/bin/brigade-worker"] and {w for w in command if w.startswith("--")} <= flags_of(WORKER)
    assert by["USER"] == "brigade" and "/var/cache/brigade" in volumes
    order = [s[0] for s in steps]
    assert order.index("USER") > order.index("RUN"), "packages are installed as root, the worker runs as brigade"


def test_slurm_script_runs():
    """The batch script with stand-ins for Slurm's two programs: each "node" is this machine."""
    script = os.path.join(PACKAGING, "deploy", "brigade.slurm")
    output("bash", "-n", script)
    head = [line for line in open(script) if line.startswith("#SBATCH ")]
    assert len(head) >= 6 and all(re.match(r"#SBATCH --[a-z-]+=\S+$", line.strip()) for line in head), head
    if shutil.which("shellcheck"):
        output("shellcheck", script, os.path.join(SOURCE, "scripts", "package"), os.path.join(PACKAGING, "worker-memory-limit"))
    folder = temporary_folder()
    tools = os.path.join(folder, "bin")
    os.mkdir(tools)
    os.symlink(BRIGADE, os.path.join(tools, "brigade"))
    os.symlink(WORKER, os.path.join(tools, "brigade-worker"))
    port = free_ports()
    for name, body in (("scontrol", "echo localhost"),
                       ("srun", 'while [ "${1#--}" != "$1" ]; do shift; done; SLURMD_NODENAME=localhost exec "$@"')):
        with open(os.path.join(tools, name), "w") as f:
            f.write(f"#!/bin/bash\n{body}\n")
        os.chmod(os.path.join(tools, name), 0o755)
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "localhost",
           "SLURM_CPUS_PER_TASK": "1", "BRIGADE_PORT": str(port), "BRIGADE_MODELS": os.path.dirname(MODEL), "TMPDIR": folder}
    said = output(script, "run", "-m", MODEL, "-p", "Once upon a time", "-n", "4", "--temp", "0", cwd=folder, env=env, timeout=patience())
    assert len(said) > 5, said
    assert not glob.glob(os.path.join(folder, ".brigade-*")), "keys were left behind"


# ---- Packages -------------------------------------------------------------------------------------------------------

def test_packages_in_a_root_of_their_own():
    made, depends, root = root_for_packages(("chroot", "unshare", "strip"))
    assert any("libzmq5" in d for d in depends) and any("libsodium" in d for d in depends), depends
    for package in made:
        shutil.copy(package, os.path.join(root, "tmp"))

    def inside(*command, **more):
        # Processes of its own: whatever is left running ends with the first of them.
        return output("unshare", "--pid", "--fork", "--kill-child", "--mount", "sh", "-c",
                      f'mount -t proc proc "{root}/proc"; mount --bind /dev "{root}/dev"; mount --bind /sys "{root}/sys"; exec chroot "{root}" "$@"', "sh", *command,
                      env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}, timeout=patience(), **more)
    said = inside("sh", "-c", "dpkg --force-unsafe-io -i /tmp/*.deb")
    keys = re.findall(r"^brigade(?:-worker)?: .* (\S{40})$", said, re.M)
    assert len(keys) == 2, said
    state = inside("dpkg-query", "-W", "-f", "${Package} ${Status}\n")
    assert all(f"{p} install ok installed" in state for p in ("brigade", "brigade-worker")), state
    assert "node.key" in inside("find", "/etc/brigade", "-name", "*.key", "-user", "brigade", "-perm", "0600")
    # As the unit runs it: user brigade, settings from /etc/brigade; then an answer over it.
    coordinator = inside("brigade", "keygen", "--public", "/etc/brigade/coordinator.key").strip()
    assert coordinator in keys, (coordinator, keys)
    settings = root + "/etc/brigade/worker.yaml"
    text = open(settings).read()
    assert "allow: []" in text and "0.0.0.0:7700" in text
    open(settings, "w").write(text.replace("allow: []", f'allow: ["{coordinator}"]').replace("0.0.0.0:7700", "127.0.0.1:*"))
    story = inside("su", "-s", "/bin/sh", "brigade", "-c", """
        set -e; cd /tmp
        brigade-worker --config /etc/brigade/worker.yaml >ready 2>log &
        worker=$!
        until test -s ready; do kill -0 $worker || { cat log >&2; exit 1; }; sleep 0.05; done
        endpoint=$(sed -n 's/.* at \\(tcp:[^ ]*\\) key.*/\\1/p' ready)
        key=$(brigade-worker --keygen --key /etc/brigade/node.key)
        printf 'version: 1\\ncoordinator: {key: /etc/brigade/coordinator.key}\\nnodes:\\n  - {name: here, endpoint: "%s", public_key: "%s"}\\n' \
            "$endpoint" "$key" >cluster.yaml
        brigade run -c cluster.yaml -m /usr/share/brigade/models/stories-5m-q8_0.gguf -p 'Once upon a time' -n 12 --temp 0 || { cat log ready >&2; exit 1; }
        kill $worker; wait $worker
        ls -d /var/cache/brigade/*
    """)
    here = brigade("run", "-m", MODEL, "-p", "Once upon a time", "-n", "12", "--temp", "0").stdout
    assert here.strip() and here.strip() in story, (here, story)
    for path in ("/usr/share/man/man1/brigade.1.gz", "/usr/share/bash-completion/completions/brigade-worker", "/lib/systemd/system/brigade-worker.service",
                 "/usr/share/doc/brigade/copyright", "/usr/share/doc/brigade/examples/brigade.slurm"):
        assert os.path.exists(root + path), f"{path} is not there"
    # Installing again keeps the keys; purging leaves nothing of ours.
    inside("sh", "-c", "dpkg --force-unsafe-io -i --force-confold /tmp/*.deb")
    assert inside("brigade-worker", "--keygen", "--key", "/etc/brigade/node.key").strip() in keys
    inside("dpkg", "--purge", "brigade", "brigade-worker")
    left = inside("find", "/etc", "/usr", "/var/lib/brigade", "/var/cache", "-name", "*brigade*") if os.path.exists(root + "/var/lib/brigade") else \
        inside("find", "/etc", "/usr", "/var/cache", "-name", "*brigade*")
    assert not left, left
    assert "brigade" not in inside("cat", "/etc/passwd")


main(globals())
