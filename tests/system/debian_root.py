"""A root folder of Debian packages to install ours into: made of this machine's own packages, the essential ones and those
asked for, so that nothing is downloaded. BRIGADE_CHROOT=DIR (as debootstrap makes it) is copied instead when given."""
import glob
import os
import re
import shutil
import subprocess

from lab import BRIGADE, SOURCE, WORKER, SkipTest, temporary_folder


def output(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr[-2000:]}{done.stdout[-1000:]}"
    return done.stdout


def packages_of_this_build(folder):
    """Both packages of the build under test, put into the folder; their paths."""
    build = os.path.dirname(os.path.dirname(BRIGADE))
    assert os.path.dirname(os.path.dirname(WORKER)) == build
    made = output(os.path.join(SOURCE, "scripts", "package"), "--build", build, "--out", folder).split()
    assert len(made) == 2, made
    return made


def installed_packages():
    """{name: {field: text}} of this machine's dpkg, other architectures left out."""
    found, here = {}, output("dpkg", "--print-architecture").strip()
    for paragraph in open("/var/lib/dpkg/status").read().split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.M))
        if fields.get("Status") == "install ok installed" and fields["Architecture"] in ("all", here):
            found[fields["Package"]] = {**fields, "paragraph": paragraph}
    return found


def closure(installed, wanted):
    """The packages that these need, themselves included; what is needed must be here."""
    provided = {}
    for name, fields in installed.items():
        for word in fields.get("Provides", "").split(","):
            provided.setdefault(word.split("(")[0].strip(), name)
    names, todo = set(), list(wanted)
    while todo:
        alternatives = [re.sub(r"[:(].*", "", w).strip() for w in todo.pop().split("|")]
        name = next((installed[w]["Package"] if w in installed else provided[w] for w in alternatives if w in installed or w in provided), None)
        if name is None:
            raise SkipTest(f"this machine has no {alternatives[0]} to build a root from")
        if name not in names:
            names.add(name)
            fields = installed[name]
            todo += [w for f in ("Depends", "Pre-Depends") for w in fields.get(f, "").split(",") if w.strip()]
    return names


def make_root(root, wanted):
    """A root of this machine's essential packages and those wanted, as dpkg would have installed them."""
    if os.environ.get("BRIGADE_CHROOT"):
        subprocess.run(["cp", "-a", os.environ["BRIGADE_CHROOT"] + "/.", root], check=True)
        return
    installed = installed_packages()
    names = closure(installed, [n for n, f in installed.items() if f.get("Essential") == "yes"] + wanted)
    for folder in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink("/" + folder):
            os.makedirs(os.path.join(root, "usr", folder), exist_ok=True)
            os.symlink("usr/" + folder, os.path.join(root, folder))
    qualified = [n if installed[n]["Architecture"] == "all" else f"{n}:{installed[n]['Architecture']}" for n in sorted(names)]
    paths = set(output("dpkg", "-L", *qualified).splitlines())
    skipped = ("/usr/share/doc/", "/usr/share/locale/", "/usr/share/man/", "/usr/share/info/")
    paths = {os.path.realpath(os.path.dirname(p)) + "/" + os.path.basename(p) for p in paths
             if p.startswith("/") and p != "/." and os.path.lexists(p) and not p.startswith(skipped)}
    links = [p for p in paths if not (os.path.isdir(p) and not os.path.islink(p))]
    for name in glob.glob("/var/lib/dpkg/alternatives/*"):  # links that no package owns
        lines = open(name).read().split("\n\n")[0].splitlines()[1:]
        for link, alternative in [(lines[0], os.path.basename(name))] + [(lines[i + 1], lines[i]) for i in range(1, len(lines) - 1, 2)]:
            target = os.path.realpath(link)
            if target in paths:
                links += [os.path.realpath(os.path.dirname(link)) + "/" + os.path.basename(link), "/etc/alternatives/" + alternative]
    folders = [p for p in paths if os.path.isdir(p) and not os.path.islink(p)]
    info = [p for n in names for p in glob.glob(f"/var/lib/dpkg/info/{n}.*") + glob.glob(f"/var/lib/dpkg/info/{n}:*")]
    listing = "\n".join(sorted(set(p for p in folders + links + info if not p.startswith(("/bin/", "/lib/", "/sbin/")))))
    packer = subprocess.Popen(["tar", "-C", "/", "--no-recursion", "-c", "-T", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    unpacker = subprocess.Popen(["tar", "-C", root, "-xp"], stdin=packer.stdout)
    packer.stdin.write(listing.replace("\n/", "\n").lstrip("/").encode())
    packer.stdin.close()
    assert unpacker.wait() == 0
    packer.wait()
    for folder in ("tmp", "proc", "dev", "sys", "var/lib/dpkg/updates", "var/lib/dpkg/info", "var/log", "run", "etc/pam.d"):
        os.makedirs(os.path.join(root, folder), exist_ok=True)
    open(os.path.join(root, "var/lib/dpkg/status"), "w").write("\n\n".join(installed[n]["paragraph"].strip("\n") for n in sorted(names)) + "\n")
    for name, text in (("passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"),
                       ("group", "root:x:0:\nnogroup:x:65534:\n"), ("shadow", "root:*:1:0:99999:7:::\n"), ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")):
        open(os.path.join(root, "etc", name), "w").write(text)
    for name in ("auth", "account", "password", "session", "session-noninteractive"):
        open(os.path.join(root, "etc/pam.d", "common-" + name), "w").write(f"{name.split('-')[0]} required pam_permit.so\n")


def root_for_packages(tools, wanted=()):
    """The packages of this build, what they depend on, and a root of that and of what else is wanted, in a folder of its own:
    (paths, dependencies, root). Skips where it cannot be: not as root, or without one of the tools."""
    if os.geteuid() != 0:
        raise SkipTest("needs root, for a root of its own")
    for tool in ("dpkg-deb", "dpkg-shlibdeps", *tools):
        if not shutil.which(tool):
            raise SkipTest(f"no {tool} here")
    folder = temporary_folder()
    os.chmod(folder, 0o755)
    made = packages_of_this_build(folder)
    depends = [w for p in made for w in output("dpkg-deb", "-f", p, "Depends").split(",")]
    root = os.path.join(folder, "root")
    os.mkdir(root)
    make_root(root, depends + list(wanted))
    return made, depends, root
