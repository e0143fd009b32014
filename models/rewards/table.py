"""The rewards there are, by the name that a config gives."""

from collections.abc import Mapping

from core.errors import nearest
from models.errors import ModelError
from models.rewards.aesthetic import Aesthetic
from models.rewards.brightness import Brightness
from models.rewards.caption_alignment import CaptionAlignment
from models.rewards.contrast import Contrast
from models.rewards.motion import Motion, Stillness
from models.rewards.preference import Preference
from models.rewards.random_cnn import RandomCnn
from models.rewards.reward import Reward
from models.rewards.sharpness import Sharpness

REWARDS: Mapping[str, Reward] = {
    "brightness": Brightness(),
    "contrast": Contrast(),
    "sharpness": Sharpness(),
    "motion": Motion(),
    "stillness": Stillness(),
    "random_cnn": RandomCnn(),
    "aesthetic": Aesthetic(),
    "caption_alignment": CaptionAlignment(),
    "hps_v2_1": Preference("hps-v2-1", whole=True),
    "pickscore": Preference("pickscore-v1", whole=False),
}
FREE = tuple(name for name, reward in REWARDS.items() if not reward.needs and name != "random_cnn")
"""rewards that need no weights, which every run logs beside those that it trains on"""


def find_reward(name: str, scores: frozenset[str] = frozenset()) -> Reward:
    """Return a reward.

    Args:
        name: as a config gives it.
        scores: names of scores that there are elsewhere, none of which has a gradient.

    Raises:
        ModelError: no such reward, with the nearest name; or a score that cannot be differentiated, with the list of
            those that can.
    """
    if name in REWARDS:
        return REWARDS[name]
    if name in scores:
        raise ModelError(f"reward {name}: cannot be differentiated; those that can: {', '.join(REWARDS)}")
    raise ModelError(f"reward '{name}': there is none{nearest(name, list(REWARDS))}")
