"""The help: what works here and now, the guide to trouble, how to read the curve, and what the terminal can do.

Opened over a screen with what was on offer there. Returns the symptom whose remedy is to be applied, or None.
"""

from __future__ import annotations

from itertools import zip_longest

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import ContentSwitcher, OptionList, Static
from textual.widgets.option_list import Option

from engine.config import RunConfig
from engine.dataset.query_fields import FIELDS
from engine.text import safe_text
from tui.keys.active import Offer, by_group
from tui.keys.caption import EDITOR_KEYS
from tui.keys.dialogs import DIALOG_KEYS, HELP_KEYS
from tui.keys.key import bindings
from tui.safe import safe
from tui.symptoms import SYMPTOMS, Symptom
from tui.widgets.cells import wrap
from tui.widgets.marked_list import MarkedList

MOST_KEYS = 16
"""Cells of the column of keys; more keys than these go to another line."""

KNOWN = frozenset(key.id for key in EDITOR_KEYS if key.action.startswith(("cursor_", "delete_left", "delete_right")))
"""What every text field has, and nobody has to be told."""

BOX, FRAME = 96, 7
"""Widest box, and what its frame, margins and scroll bar take of it; as in the style sheet."""

PAGES = ("keys", "trouble", "curve", "terminal", "filter")
TITLES = ("Keys here", "Trouble", "The curve", "The terminal", "The filter")

CURVE = (
    "One step's loss depends mostly on the noise level drawn for it, so the dim points scatter widely and stay "
    "scattered. The bright line is their moving average: while it falls, the model learns; flat for long, it has "
    "learned what it will.\n\n"
    "Trust the samples more than the curve: stop when they show the concept and still follow their prompts.\n\n"
    "A single high point is one hard noise level and means nothing. A line that rises for an epoch means that the "
    "learning rate is too high. A loss that is no number ends the run.\n\n"
    "Marks on the axis are epochs, on a long run some of them; a filled one has a saved file."
)
TERMINAL = (
    "Leaving, closing the window and losing the connection do not end a run: kiln in the same folder comes back to "
    "it, from any terminal of any size.\n\nShift and drag selects text in most terminals; mouse = false in the "
    "settings leaves the mouse to the terminal altogether. y copies over SSH too where the terminal takes OSC 52 "
    "(tmux: set -g set-clipboard on).\n\nPictures are drawn with characters, or by the Sixel or Kitty protocol where "
    "the terminal has them: images in the settings says which. NO_COLOR, theme, ascii and refresh_hz make the screen "
    "fit any terminal; f8 walks through the themes.\n\nEvery key can be changed in the settings, by the id that "
    'the list of keys shows from 100 columns on:\n\n    [keymap]\n    "run.pause" = "p,f9"\n\n'
    'keys = "vim" adds h j k l G.'
)
FILTER = (
    'Words are looked for in name and caption, in any case; all must be there. "two words" belong together, '
    "-word leaves out, ? is any character and * any number of them. AND, OR, NOT and ( ) join what is asked; "
    "numbers take < <= = != >= > and ranges, as in stars:2..4."
)


class HelpScreen(ModalScreen[Symptom | None]):
    """Five pages; digits, arrows or the mouse turn them."""

    BINDINGS = bindings(DIALOG_KEYS + HELP_KEYS)

    def __init__(
        self,
        given: list[Offer],
        config: RunConfig | None = None,
        symptom: str = "",
        guide: tuple[Symptom, ...] = SYMPTOMS,
        page: str = "keys",
    ) -> None:
        super().__init__()
        self._guide = guide
        self._offers = given
        self._config = config
        self._first = next((n for n, known in enumerate(guide) if known.id == symptom), 0)
        self._page = PAGES.index("trouble" if symptom else page)

    def compose(self) -> ComposeResult:
        """The row of titles, the pages, and what the keys do."""
        with Vertical(classes="box -wide -help"):
            yield Static(id="titles")
            with ContentSwitcher(initial=PAGES[self._page]):
                with VerticalScroll(id="keys", can_focus=False):
                    yield Static(id="key-table")
                with Vertical(id="trouble"):
                    yield MarkedList(
                        *(Option(safe(s.name), id=s.id) for s in self._guide), id="symptoms", markup=False
                    )
                    with VerticalScroll(id="advice", can_focus=False):
                        yield Static(id="symptom")
                with VerticalScroll(id="curve", can_focus=False):
                    yield Static(safe(CURVE, newlines=True))
                with VerticalScroll(id="terminal", can_focus=False):
                    yield Static(safe(TERMINAL, newlines=True))
                with VerticalScroll(id="filter", can_focus=False):
                    yield Static(filter_page())
            yield Static(id="help-foot", classes="foot")

    def on_mount(self) -> None:
        """Fill the pages."""
        self.query_one("#symptoms", OptionList).highlighted = self._first
        self._list_keys()
        self._show_symptom(self._guide[self._first])
        self._show_page()

    def on_resize(self) -> None:
        """Other lines for another width."""
        self._list_keys()

    def _list_keys(self) -> None:
        width = self.app.size.width
        room = min(BOX, width * 96 // 100) - FRAME
        self.query_one("#key-table", Static).update(key_table(self._offers, room, with_ids=width >= 100))

    def action_page(self, number: int) -> None:
        """Go to page ``number``, from 1."""
        self._page = number - 1
        self._show_page()

    def action_turn(self, by: int) -> None:
        """The next page, or the one before."""
        self._page = (self._page + by) % len(PAGES)
        self._show_page()

    def action_move(self, by: int) -> None:
        """Scroll the page; on the guide, walk through the list."""
        if PAGES[self._page] == "trouble":
            options = self.query_one("#symptoms", OptionList)
            options.highlighted = ((options.highlighted or 0) + by) % len(self._guide)
        else:
            self.query_one(f"#{PAGES[self._page]}").scroll_relative(y=by, animate=False)

    def action_leaf(self, by: int) -> None:
        """Scroll by most of what is seen; on the guide, what is said of the symptom."""
        name = PAGES[self._page]
        place = self.query_one("#advice" if name == "trouble" else f"#{name}")
        place.scroll_relative(y=by * max(1, place.size.height - 2), animate=False)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Tell of the symptom under the cursor."""
        self._show_symptom(self._guide[event.option_index])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Enter or a click takes the remedy."""
        self.action_apply()

    def action_apply(self) -> None:
        """Open the setup form with the remedy's changes."""
        options = self.query_one("#symptoms", OptionList)
        symptom = self._guide[options.highlighted or 0]
        if PAGES[self._page] == "trouble" and self._config is not None and symptom.changes(self._config):
            self.dismiss(symptom)

    def action_close(self) -> None:
        """Back."""
        self.dismiss(None)

    def _show_page(self) -> None:
        name = PAGES[self._page]
        self.query_one(ContentSwitcher).current = name
        parts: list[str | Content | tuple[str, str]] = []
        for number, title in enumerate(TITLES, start=1):
            here = number == self._page + 1
            parts += [(f"{'>' if here else ' '}{number} {title}", "bold $text-accent" if here else ""), "  "]
        self.query_one("#titles", Static).update(Content.assemble(*parts))
        options = self.query_one("#symptoms", OptionList)
        if name == "trouble":
            options.focus()
        else:
            self.set_focus(None)
        self._show_foot()

    def _show_foot(self) -> None:
        words = "1 to 5 or arrows turn pages, j and k scroll, esc goes back"
        if PAGES[self._page] == "trouble":
            applies = self._config is not None
            words = "enter makes these changes in the setup form, " if applies else ""
            words += "page down reads on, esc goes back"
        self.query_one("#help-foot", Static).update(safe(words))

    def _show_symptom(self, symptom: Symptom) -> None:
        self.query_one("#symptom", Static).update(symptom_text(symptom, self._config))
        self.query_one("#advice").scroll_home(animate=False)


def key_table(given: list[Offer], room: int, with_ids: bool) -> Content:
    """The keys by group and what they do, in ``room`` cells; their ids at the right where there is room."""
    told = [offer for offer in given if offer.id not in KNOWN]
    keys = min(MOST_KEYS, max((len(offer.shown) for offer in told), default=0))
    ids = max((len(offer.id) for offer in told), default=0) if with_ids else 0
    words = max(10, room - 2 - keys - 2 - (ids + 2 if ids else 0))
    lines: list[Content] = []
    for group, rows in by_group(told).items():
        lines.append(Content.styled(("\n" if lines else "") + group, "bold"))
        for offer in rows:
            cells = zip_longest(wrap(offer.shown, keys), wrap(offer.help, words), fillvalue="")
            for number, (key, text) in enumerate(cells):
                name = offer.id if ids and not number else ""
                lines.append(
                    Content.assemble((f"  {key:<{keys}}  ", "$text-accent"), f"{text:<{words}}", (f"  {name}", "dim"))
                )
    return Content("\n").join(lines)


def filter_page() -> Content:
    """What can be typed into the dataset's filter."""
    width = max(len(field.example) for field in FIELDS.values())
    lines = [Content(FILTER), Content("")]
    for field in FIELDS.values():
        lines.append(Content.assemble((f"{field.example:<{width}}  ", "$text-accent"), field.help))
    return Content("\n").join(lines)


def symptom_text(symptom: Symptom, config: RunConfig | None) -> Content:
    """Signs, causes and advice, and what would change in ``config``."""
    lines = [Content.styled(symptom.signs, "italic"), Content.styled("\nWhy", "bold")]
    lines += [Content(f"- {cause}") for cause in symptom.causes]
    lines.append(Content.styled("\nWhat helps", "bold"))
    lines += [Content(f"- {part}") for part in symptom.advice]
    lines.append(Content.styled("\nTo change", "bold"))
    if config is None:
        return Content("\n").join([*lines, Content("Open a configuration, and its values stand here.")])
    changes = symptom.changes(config)
    for key, value in changes.items():
        old = safe_text(_value(config, key), 40)
        lines.append(Content.assemble(f"  {key}  {old} to ", (safe_text(value, 40), "bold $text-accent")))
    if not changes:
        lines.append(Content("Nothing in this configuration; what is said above is what is left."))
    return Content("\n").join(lines)


def _value(config: RunConfig, dotted: str) -> object:
    value: object = config
    for part in dotted.split("."):
        value = getattr(value, part)
    return value
