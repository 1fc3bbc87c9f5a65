"""Drives the unmodified Polyaxon CLI and Python client, of the 0.2.9 or the 0.5.6 era.

Environment: ADDR (host:port), TOKEN, ERA (a or c), IMAGE (a base image that the server has). The
working directory and HOME must be empty and writable. The last line is `all well`.
"""

import os
import re
import subprocess
import sys
import time

ADDR, TOKEN, ERA, IMAGE = (os.environ[n] for n in ("ADDR", "TOKEN", "ERA", "IMAGE"))
HOST, PORT = ADDR.rsplit(":", 1)
CLI = os.path.join(os.path.dirname(sys.executable), "polyaxon")
NEW = ERA == "c"
PROJECT = "first-" + ERA


def cli(*args, fails=False, says=None):
    """Runs the CLI; it must do its work (or fail), and say something."""
    done = subprocess.run([CLI, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    text = done.stdout.decode()
    assert fails == (done.returncode != 0), (args, done.returncode, text)
    assert "Traceback" not in text, (args, text)
    for words in [says] if isinstance(says, str) else says or []:
        assert words in text, (args, words, text)
    return text


def step(text):
    print("==", text, flush=True)


def write(name, text):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w") as file:
        file.write(text)


def spec(name, steps, image=IMAGE, extra=""):
    """Writes a specification in the form of the era: nested or flat."""
    lines = ["image: " + image, "build_steps:"] + ["  - " + s for s in steps]
    if not NEW:
        lines = ["build:"] + ["  " + line for line in lines]
    write(name, "\n".join(["version: 1", "kind: build"] + lines) + "\n" + extra)


def started(text):
    found = re.search(r"Build (\d+) was created", text) or re.search(r"Build.*?(\d+)", text)
    assert found, text
    return found.group(1)


def ended(number):
    for _ in range(600):
        text = cli("build", "-b", number, "statuses")
        found = re.search(r"succeeded|failed|stopped", text)
        if found:
            return found.group(0), text
        time.sleep(0.2)
    raise AssertionError("build %s does not end: %s" % (number, text))


def client():
    from polyaxon_client.client import PolyaxonClient

    if NEW:
        return PolyaxonClient(host=HOST, port=int(PORT), token=TOKEN, schema_response=True, reraise=True)
    return PolyaxonClient(host=HOST, http_port=int(PORT), ws_port=int(PORT), token=TOKEN, reraise=True)


def log_in():
    step("log in, with a token and with a password")
    ports = ["--port=" + PORT, "--use_https=false"] if NEW else ["--http_port=" + PORT, "--ws_port=" + PORT]
    cli("config", "set", "--host=" + HOST, *ports)
    cli("login", "-t", "not-a-token", fails=True)
    cli("login", "-t", TOKEN, says="ogin")
    cli("login", "-u", "admin", "-p", TOKEN, says="ogin")
    cli("whoami", says="admin")
    cli("version", "--cli")
    cli("cluster")


def project():
    step("a project with code")
    cli("project", "create", "--name=" + PROJECT, "--description=the first", says="created successfully")
    cli("project", "create", "--name=" + PROJECT, fails=True)
    # 0.2.x exits 1 after it did its work.
    subprocess.run([CLI, "init", PROJECT], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert os.path.exists(".polyaxon/.polyaxonproject") or os.path.exists(".polyaxonproject")
    cli("project", "get", says=[PROJECT, "the first"])
    cli("project", "list", says=PROJECT)
    cli("project", "update", "--description=changed", says="updated")
    cli("project", "get", says="changed")
    write("app.py", "print('hello')\n")
    write("sub/deep/x.txt", "x\n")
    write("requirements.txt", "nothing\n")
    cli("upload", says="uploaded")


def builds():
    step("a build that succeeds, with its statuses and logs")
    spec("build.yaml", ["echo answer-$((40+2))", "test -f requirements.txt", "test ! -e app.py"])
    tags = ["--tags=red,blue"]
    number = started(cli("run", "-f", "build.yaml", "--name=named", "--description=d", *tags))
    status, rows = ended(number)
    assert status == "succeeded", rows
    for word in ("created", "scheduled", "building", "running"):
        assert word in rows, rows
    past = ["--past"]
    cli("build", "-b", number, "logs", *past, says="answer-42")
    cli("build", "-b", number, "logs", says="answer-42")
    cli("build", "-b", number, "get", says=["named", "succeeded"])
    cli("build", "-b", number, "update", "--name=renamed", "--tags=green", says="updated")
    cli("build", "-b", number, "get", says=["renamed", "green"])
    cli("build", "-b", number, "bookmark", says="bookmarked")
    if NEW:
        cli("bookmark", "builds", says="%s.builds.%s" % (PROJECT, number))
    cli("build", "-b", number, "unbookmark", says="unbookmarked")
    cli("project", "builds", says=number)
    cli("project", "builds", "-q", "status:succeeded", "-s", "-created_at", says=number)
    cli("project", "builds", "-q", "nonsense:1", fails=True)
    step("a build that is followed while it runs")
    spec("slow.yaml", ["for i in 1 2 3; do echo tick-$i; sleep 1; done"])
    cli("run", "-f", "slow.yaml", "-l", says=["tick-1", "tick-3"])
    step("a build that fails says why")
    spec("bad.yaml", ["echo before", "exit 3"])
    number = started(cli("run", "-f", "bad.yaml"))
    status, rows = ended(number)
    assert status == "failed" and "exist-code(3)" in rows.replace("\n", ""), rows
    spec("none.yaml", [], image="there-is-no-such-image:1")
    number = started(cli("run", "-f", "none.yaml"))
    status, rows = ended(number)
    assert status == "failed", rows
    step("a build that is stopped, one that is deleted")
    spec("sleep.yaml", ["sleep 300"])
    number = started(cli("run", "-f", "sleep.yaml"))
    cli("build", "-b", number, "stop", "-y", says="topped")
    status, rows = ended(number)
    assert status == "stopped", rows
    number = started(cli("run", "-f", "sleep.yaml"))
    subprocess.run([CLI, "build", "-b", number, "delete"], input=b"y\n", check=True, stdout=subprocess.DEVNULL)
    cli("build", "-b", number, "get", fails=True)
    if NEW:
        step("uploading and running at once, and the code back")
        write("app.py", "print('again')\n")
        spec("copied.yaml", ["echo copied"])
        number = started(cli("run", "-u", "-f", "copied.yaml"))
        assert ended(number)[0] == "succeeded"
        os.makedirs("back", exist_ok=True)
        cli("project", "download")


def of(thing, key):
    """Old clients give dicts, new ones objects."""
    return thing[key] if isinstance(thing, dict) else getattr(thing, key)


def library():
    step("the Python client")
    c = client()
    user = c.auth.get_user(TOKEN)
    assert of(user, "username") == "admin", user
    api = c.build_job
    listed = c.project.list_builds("admin", PROJECT)
    assert listed["results"] and listed["count"] >= 3, listed
    if NEW:
        content = "{'version': 1, 'kind': 'build', 'image': '%s'}" % IMAGE
        made = c.project.create_build("admin", PROJECT, {"content": content, "tags": ["t"]})
    else:
        config = {"version": 1, "kind": "build", "build": {"image": IMAGE}}
        made = c.project.create_build("admin", PROJECT, {"config": config})
    number = of(made, "id")
    for _ in range(300):
        build = api.get_build("admin", PROJECT, number)
        if of(build, "last_status") in ("succeeded", "failed"):
            break
        time.sleep(0.2)
    assert of(build, "last_status") == "succeeded", build
    assert of(build, "unique_name") == "admin.%s.builds.%s" % (PROJECT, number)
    statuses = api.get_statuses("admin", PROJECT, number)
    words = [of(row, "status") for row in statuses["results"]]
    assert words == ["created", "scheduled", "building", "running", "succeeded"], words
    changed = api.update_build("admin", PROJECT, number, {"description": "patched"})
    assert of(changed, "description") == "patched"
    api.bookmark("admin", PROJECT, number)
    api.unbookmark("admin", PROJECT, number)
    if NEW:
        outside(c)


def outside(c):
    step("a build that is driven from outside")
    api = c.build_job
    made = c.project.create_build("admin", PROJECT, {"is_managed": False, "name": "outside"})
    for status in ("running", "running", "succeeded", "running"):
        api.create_status("admin", PROJECT, made.id, status, "said " + status)
    words = [row.status for row in api.get_statuses("admin", PROJECT, made.id)["results"]]
    assert words == ["created", "running", "succeeded"], words
    assert api.get_build("admin", PROJECT, made.id).last_status == "succeeded"
    api.delete_build("admin", PROJECT, made.id)
    try:
        api.get_build("admin", PROJECT, made.id)
    except Exception as error:
        assert type(error).__name__ == "NotFoundError", error
    else:
        raise AssertionError("a deleted build is still there")


log_in()
project()
builds()
library()
print("all well")
