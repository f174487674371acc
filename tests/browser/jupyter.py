"""JupyterLab as the tests use it: a server of their own, and a lesson open in a browser's page.

What is looked for on the page has the class names of JupyterLab 4 and ipywidgets 8.
"""

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat

HOME = Path(__file__).parents[2]
PATIENCE = 300  # seconds until something is taken to hang

#: Every cell is on the page, also those out of sight; and nothing pops up to ask for news.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

NOTEBOOK = ".jp-NotebookPanel .jp-Notebook"
OUTPUT = ".jp-OutputArea-output"
CONTROLS = f"{NOTEBOOK} {OUTPUT} :is(.noUi-handle:not([disabled] *), .widget-dropdown select:enabled)"

#: How far the run is, and what went wrong. Cells that hold nothing get no number.
STATE = """() => {
  const all = (query) => [...document.querySelectorAll('.jp-NotebookPanel .jp-Notebook ' + query)];
  const prompts = all('.jp-CodeCell').filter((cell) => cell.querySelector('.cm-content').innerText.trim())
    .map((cell) => cell.querySelector('.jp-InputPrompt').innerText.trim());
  const texts = (query) => all('.jp-OutputArea-output' + query).map((output) => output.innerText);
  return {
    started: prompts.some((prompt) => /[*\\d]/.test(prompt)),
    waiting: prompts.filter((prompt) => !/^\\[\\d+\\]:$/.test(prompt)).length,
    idle: document.querySelector('.jp-NotebookPanel .jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'
      && Boolean(document.querySelector('#jp-main-statusbar')?.innerText.includes('| Idle')),
    errors: [
      ...texts('[data-mime-type$=".error"]'),
      ...texts('[data-mime-type$=".stderr"]').filter((text) => text.includes('Traceback')),
      ...texts('').filter((text) => /Error (displaying|creating) widget/.test(text)),
    ],
    unfinished: texts('').filter((text) => text.includes('Loading widget')).length,
  };
}"""

#: What the output around a control shows: a digest of the bytes of every picture, and the words.
LOOK = """async (control) => {
  const output = control.closest('.jp-OutputArea-output');
  const pictures = [];
  for (const image of output.querySelectorAll('img')) {
    const bytes = await fetch(image.src).then((answer) => answer.arrayBuffer()).catch(() => new ArrayBuffer());
    const digest = await crypto.subtle.digest('SHA-256', bytes);
    pictures.push([...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, '0')).join(''));
  }
  const words = [...output.querySelectorAll('.widget-html-content')].map((html) => html.innerText);
  return [pictures.join(' '), words.join(' ')];
}"""

#: Labels, readouts and menus wider than their place, menus that show nothing, pictures that are empty or too wide.
CUT_OFF = """(control) => {
  const output = control.closest('.jp-OutputArea-output'), edge = output.getBoundingClientRect().right + 1;
  return [...output.querySelectorAll('.widget-label, .widget-readout, .widget-dropdown, img')]
    .filter((one) => one.scrollWidth > one.clientWidth + 1 || one.getBoundingClientRect().right > edge
      || one.naturalWidth === 0 || one.querySelector('select')?.selectedIndex === -1)
    .map((one) => one.innerText || one.className);
}"""


class Lab:
    """JupyterLab in ``folder``, on a free port, with a token and settings of its own."""

    def __init__(self, folder: Path):
        self.folder, self.token = folder / "course", secrets.token_hex(16)
        self.folder.mkdir()
        self._runtime, self.log = folder / "runtime", folder / "jupyterlab.log"
        for name, values in SETTINGS.items():
            file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                self._command(), cwd=self.folder, env=self._environment(folder), stdout=log, stderr=subprocess.STDOUT
            )

    def _command(self) -> list[str]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": port,  # where another takes it first, the server tries others, and `url` knows
            "ServerApp.open_browser": False,
            "ServerApp.allow_root": True,
            # If the tests are killed and cannot stop it, it stops itself.
            "ServerApp.shutdown_no_activity_timeout": 2 * PATIENCE,
            "MappingKernelManager.cull_idle_timeout": 2 * PATIENCE,
        }
        return [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]

    def _environment(self, folder: Path) -> dict[str, str]:
        folders = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "share",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
            "SURVEY_RESULTS": "results",
        }
        own = {name: str(folder / place) for name, place in folders.items()}
        lesson = {"SURVEY_HOME": str(HOME), "SURVEY_PROFILE": "smoke", "OMP_NUM_THREADS": "1"}
        return {**os.environ, **own, **lesson, "JUPYTER_TOKEN": self.token}

    def url(self) -> str:
        """Where it listens, as soon as it does. Raises RuntimeError with the end of its log if it never does."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            for file in self._runtime.glob(f"jpserver-{self._process.pid}.json"):
                with contextlib.suppress(OSError, ValueError):  # half written, or not listening yet
                    port = json.loads(file.read_text())["port"]
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                    return f"http://127.0.0.1:{port}"
            time.sleep(0.2)
        raise RuntimeError(f"JupyterLab did not start; the end of its log:\n{self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        """End the server, and by it the kernels."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Control:
    """A slider's handle or a menu, on the page."""

    def __init__(self, handle):
        self.handle = handle
        self.name = handle.evaluate("one => one.closest('.jupyter-widgets')?.querySelector('.widget-label')?.innerText")

    @property
    def menu(self) -> bool:
        return self.handle.evaluate("one => one.tagName === 'SELECT'")

    @property
    def value(self) -> str:
        return self.handle.evaluate("one => one.getAttribute('aria-valuenow') ?? String(one.selectedIndex)")

    def look(self) -> tuple[str, str]:
        """The pictures and the words beside it."""
        return tuple(self.handle.evaluate(LOOK))

    def output(self) -> str:
        """Which output of the page it is in."""
        return self.handle.evaluate(
            f"one => String([...document.querySelectorAll('{OUTPUT}')].indexOf(one.closest('{OUTPUT}')))"
        )

    def cut_off(self) -> list[str]:
        """What cannot be read in full beside it."""
        return self.handle.evaluate(CUT_OFF)


class LessonPage:
    """One lesson open in JupyterLab, its cells without outputs.

    ``complaints`` are the errors seen so far, ``pictures`` what each output with controls has shown.
    """

    def __init__(self, page, lab: Lab, path: Path):
        self.page, self.complaints, self.pictures, self.kernel_has_answered = page, [], {}, False
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, lab.folder / path.name)
        page.set_default_timeout(PATIENCE * 1000)
        page.on("pageerror", lambda error: self.complaints.append(f"error on the page: {error}"))
        page.on("console", self._heard)
        page.on("websocket", lambda socket: socket.on("framereceived", self._received))
        page.goto(f"{lab.url()}/lab/tree/{path.name}?token={lab.token}")

    def run_all_cells(self) -> None:
        """Choose it in the menu and wait for the end; AssertionError with the first error of a cell."""
        self.page.locator(f"{NOTEBOOK} .jp-CodeCell").first.wait_for()
        # The page says "idle" also before there is a kernel, and cells run then are forgotten: wait for its word.
        self._until(lambda state: state["idle"] and self.kernel_has_answered, "the kernel did not start")
        self.page.locator(".lm-MenuBar-itemLabel").get_by_text("Run", exact=True).click()
        self.page.locator(".lm-Menu-itemLabel").get_by_text("Run All Cells", exact=True).click()
        self._until(lambda state: state["started"], "no cell started")
        self._until(lambda state: state["idle"] and not state["waiting"], "the cells did not come to an end")
        self._until(lambda state: not state["unfinished"], "a widget was not drawn")

    def controls(self) -> list[Control]:
        """Every slider and menu that can be moved, from the top of the page."""
        return [Control(handle) for handle in self.page.locator(CONTROLS).all()]

    def move(self, control: Control) -> set[str]:
        """Move it by the keyboard, a step and back and to both ends, and see a change each time; the values it had.

        A menu then shows its first choice again, for one menu may leave another nothing to choose from.
        """
        control.handle.scroll_into_view_if_needed()
        values, look = [control.value], control.look()
        shown = self.pictures.setdefault(control.output(), set()) if look[0] else set()
        shown.add(look[0])
        for key in ("ArrowRight", "ArrowLeft", "Home", "End"):
            control.handle.press(key)
            if control.value == values[-1]:
                continue
            values.append(control.value)
            look = self._changed(control, look)
            shown.add(look[0])
        if control.menu and values[-1] != values[0]:
            control.handle.select_option(index=int(values[0]))
            self._changed(control, look)
        return set(values)

    def screenshot(self, path: Path) -> Path:
        """A picture of the page as it is."""
        self.page.screenshot(path=path, animations="disabled")
        return path

    def _changed(self, control: Control, before: tuple[str, str]) -> tuple[str, str]:
        deadline = time.monotonic() + PATIENCE / 5
        while control.look() == before:
            assert not self.complaints, "; ".join(self.complaints)
            assert time.monotonic() < deadline, f"{control.name} was moved, and what is shown stayed as it was"
            self.page.wait_for_timeout(200)
        self._until(lambda state: state["idle"], "the kernel did not come to rest")
        return control.look()

    def _until(self, done, otherwise: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done(state := self.page.evaluate(STATE)):
            assert not state["errors"], f"a cell failed:\n{state['errors'][0]}"
            assert time.monotonic() < deadline, f"{otherwise} in {PATIENCE} s: {state}"
            self.page.wait_for_timeout(500)
        assert not state["errors"], f"a cell failed:\n{state['errors'][0]}"

    def _heard(self, message) -> None:
        if message.type == "error" and "widget" in message.text.lower():
            self.complaints.append(f"error in the browser's console: {message.text}")

    def _received(self, payload: str | bytes) -> None:
        """What the kernel says: an exception in a slider's callback is told here, and in no cell of the page."""
        message = payload if isinstance(payload, bytes) else payload.encode()
        self.kernel_has_answered |= bool(re.search(rb'"execution_state": ?"idle"', message))
        if re.search(rb'"msg_type": ?"error"', message):
            told = re.search(rb'"ename": ?"(.*?)", ?"evalue": ?"(.*?)"', message)
            words = b": ".join(told.groups()).decode() if told else "without words"
            self.complaints.append(f"exception in the kernel: {words}")
