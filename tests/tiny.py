"""Demo weights in miniature: trained for a few steps by the real scripts, packed as the released ones are."""

import contextlib
import io

import prepare_dataset
import train_AE
import train_LengthEstimator
import train_MARDM
from scripts import release
from utils.flags import DEMO

AE_MODEL, AE_NAME, MODEL = "FSQ_AE_High", "demo_AE", "FSQ-MARDM-SiT-XS"


def train_demo(home):
    """-> a folder of checkpoints, with which every generating script runs under --demo."""
    checkpoints = home / "checkpoints"
    where = f"--dataset_name Demo --checkpoints_dir {checkpoints}"
    common = f"{where} --dataset_dir {home}/datasets --num_workers 0 --device cpu"
    few = "--batch_size 8 --epoch 1 --max_iters 2 --warm_up_iter 1"
    ae = f"--ae_name AE --ae_model {AE_MODEL}"
    with contextlib.redirect_stdout(io.StringIO()):
        prepare_dataset.main(f"demo --clips 40 --name Demo --dataset_dir {home}/datasets".split())
        train_AE.main(f"{common} --name AE --model {AE_MODEL} --width 16 {few}".split())
        train_LengthEstimator.main(f"{common} --max_iters 2".split())
        train_MARDM.main(f"{common} --name MARDM {ae} --model {MODEL} {few}".split())
        release.main(f"{where} --name MARDM --to {DEMO['name']} --to_ae {AE_NAME}".split())
    return checkpoints
