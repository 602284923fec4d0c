"""The settings that were chosen for the machine, on the wizard's screen: changed, listed with their cost, given back.

What the user changes is fixed; the planner chooses the rest anew around it.
"""

from __future__ import annotations

from textual import on, work

from tui.screens.pick import Offer, PickDialog
from tui.screens.wizard_view import WizardView
from tui.setup import choices
from tui.setup.fields import Field
from tui.widgets.fields import Choice
from tui.widgets.wizard import FitValue
from tui.wizard import summary
from tui.wizard.options import options_of, text_of, value_of

BACK = "\0back"
"""What is taken from a list to leave a setting to the solver."""

MOST_LISTED = 12
"""Values beside those that were worked out, from which on only these are listed."""


class Values(WizardView):
    """The part of the wizard that fixes values and gives them back."""

    @on(Choice.Changed)
    def _value_changed(self, event: Choice.Changed) -> None:
        value = event.choice
        reasoned = self.reasoned(value.key) if isinstance(value, FitValue) else None
        if reasoned is None:
            return
        choices.fix(self.form.values, reasoned.key, value_of(reasoned, event.value))
        self.refill()

    @on(FitValue.GivenBack)
    def _given_back(self, event: FitValue.GivenBack) -> None:
        self._give_back(event.choice.key)

    def _give_back(self, *keys: str) -> None:
        choices.give_back(self.form.values, *keys)
        self.refill()

    def action_give_all_back(self) -> None:
        """Have everything chosen again."""
        self._give_back(*choices.fixed(self.form.values))

    @work(group="dialog", exclusive=True)
    async def action_list(self) -> None:
        """Offer what the focused field can hold; of a setting with what each value would need."""
        value = self.focused
        reasoned = self.reasoned(value.key) if isinstance(value, FitValue) else None
        if not isinstance(value, FitValue) or reasoned is None:
            await self.pick()
            return
        costs = {name: f"card {words}" for name, _, words in summary.instead(reasoned)}
        mine = text_of(reasoned.value)
        listed = options_of(reasoned)
        if len(listed) > len(costs) + MOST_LISTED:  # of many numbers those that were worked out
            listed = tuple(option for option in listed if option[0] in costs or option[0] == mine)
        offers = [Offer(each, label, costs.get(each, "as it is" if each == mine else "")) for each, label in listed]
        if reasoned.fixed:
            offers.append(Offer(BACK, "have it chosen for this machine again", reasoned.label))
        taken = await self.app.push_screen_wait(PickDialog(reasoned.label, offers, mine, reasoned.reason))
        if taken == BACK:
            self._give_back(reasoned.key)
        elif taken is not None:
            value.take(taken)

    async def offers_for(self, field: Field) -> list[Offer]:
        """What a field can hold; the places with a sentence each."""
        if field.id == "place":
            return [Offer(place.device, place.name, place.sentence) for place in self.places]
        return await super().offers_for(field)
