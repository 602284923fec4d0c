"""All tables of keys together: for the help, and to check a user's keymap."""

from __future__ import annotations

from tui.keys.batch import CHANGE_KEYS, REPLACE_KEYS, WORD_LIST_KEYS, WORDS_KEYS
from tui.keys.caption import CAPTION_KEYS, EDITOR_KEYS
from tui.keys.crop import CROP_KEYS
from tui.keys.dataset import DATASET_KEYS, FILTER_KEYS
from tui.keys.dialogs import CHANGES_KEYS, DIALOG_KEYS, ERROR_KEYS, HELP_KEYS, JUMP_KEYS, REMOVE_KEYS
from tui.keys.epochs import BLIND_KEYS, EPOCHS_KEYS, PAIR_KEYS, TAKE_KEYS, USAGE_KEYS, VERDICT_KEYS
from tui.keys.everywhere import EVERYWHERE_KEYS
from tui.keys.findings import FINDINGS_KEYS
from tui.keys.large import LARGE_KEYS
from tui.keys.machine import ASK_KEYS, REVIEW_KEYS
from tui.keys.run import LOG_KEYS, RUN_KEYS, SAMPLE_KEYS
from tui.keys.runs import COMPARE_KEYS, RUNS_KEYS
from tui.keys.setup import CHOICE_KEYS, FIELD_KEYS, SETUP_KEYS
from tui.keys.wizard import ACT_KEYS, VALUE_KEYS, WIZARD_KEYS
from tui.keys.workbench import WORKBENCH_KEYS

ALL_KEYS = (
    *EVERYWHERE_KEYS, *WORKBENCH_KEYS, *DATASET_KEYS, *FILTER_KEYS, *CAPTION_KEYS, *EDITOR_KEYS, *RUN_KEYS,
    *SAMPLE_KEYS, *LOG_KEYS, *SETUP_KEYS, *FIELD_KEYS, *CHOICE_KEYS, *WIZARD_KEYS, *VALUE_KEYS, *ACT_KEYS, *RUNS_KEYS,
    *COMPARE_KEYS, *DIALOG_KEYS, *ERROR_KEYS, *CHANGES_KEYS, *HELP_KEYS, *JUMP_KEYS, *REMOVE_KEYS,
    *REPLACE_KEYS, *CHANGE_KEYS, *WORDS_KEYS, *WORD_LIST_KEYS,
    *EPOCHS_KEYS, *PAIR_KEYS, *BLIND_KEYS, *VERDICT_KEYS, *TAKE_KEYS, *USAGE_KEYS, *CROP_KEYS, *LARGE_KEYS,
    *FINDINGS_KEYS,
    *ASK_KEYS, *REVIEW_KEYS,
)  # fmt: skip
