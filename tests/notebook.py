# %% [markdown]
# # Does a gradient penalty help on a ring of normals?
# The settings of a quick check, so that all cells take seconds; leave SMOKE out for numbers that mean something.

# %% A loss of one's own lies in a file: `%%writefile mine.py` in a notebook
from pathlib import Path

Path("mine.py").write_text("""
from torch.nn.functional import softplus

class Relaxed:
    def __init__(self, temperature: float = 1.0):
        self.t = temperature
    def d(self, real, fake):
        return softplus(-real / self.t).mean() + softplus(fake / self.t).mean()
    def g(self, fake):
        return softplus(-fake / self.t).mean()
""")

# %% One run
from ganbench import compare, load, run

SMOKE = ("experiment=smoke", "wandb=disabled", "device=cpu", "model.width=16")
relaxed = run("dataset=ring", "loss._target_=mine.Relaxed", "loss.name=relaxed", *SMOKE, name="relaxed")
relaxed

# %% What it draws, and what it recorded
points = relaxed.sample(1000, seed=1)
relaxed.metrics()[["images", "d_loss", "energy_distance"]].dropna(how="all")

# %% Another score after the fact, and the weights for elsewhere
relaxed.score("energy_distance", "metric.n_fake=500", "metric.n_real=500")
relaxed.save("relaxed.safetensors")

# %% The same command again returns the run that is there
assert (
    load("outputs/run/relaxed").score()
    == run("dataset=ring", "loss._target_=mine.Relaxed", "loss.name=relaxed", *SMOKE, name="relaxed").score()
)

# %% Several runs side by side are a command: `!python -m ganbench -m ...` in a notebook
import subprocess
import sys

sweep = ["loss=gan,wgan-gp", "seed=0,1", "name=mine"]
subprocess.run([sys.executable, "-m", "ganbench", "-m", "dataset=ring", *SMOKE, *sweep], check=True)

# %% Which is better, and how sure is that?
mine = compare("outputs/sweep/mine")
print(mine.verdict)
for pair in mine.pairs:
    print(f"{pair.better.label} vs. {pair.worse.label}: gap {pair.difference.gap:.3g}, significant: {pair.significant}")

# %% The table, to work on with pandas
table = mine.table()
table.groupby(["method", "images"])["score"].mean()

# %% The page's figures on axes of one's own
import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
mine.plot_scores(left)
mine.plot_curves(right, axis="seconds")
figure.savefig("comparison.png")
