"""Images for the search examples: of keras.datasets, of a file, or scikit-learn's digits, which need no network."""

import pathlib

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def load(data):
    """Returns `(x, y), (x_test, y_test)`: uint8 images with three channels, and int labels.

    Args:
        data: `"cifar10"` or `"cifar100"`, downloaded by Keras; `"digits"`; or the path of an .npz file with
            `x_train`, `y_train`, `x_test` and `y_test`.
    """
    if data in ("cifar10", "cifar100"):
        (x, y), (x_test, y_test) = getattr(keras.datasets, data).load_data()
    elif data == "digits":
        x, y = load_digits(return_X_y=True)
        # 8 by 8 pixels from 0 to 16, each made one of 2 by 2.
        x = np.kron(np.rint(x * (255 / 16)).astype("uint8").reshape(-1, 8, 8, 1), np.ones((1, 2, 2, 3), "uint8"))
        x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    elif pathlib.Path(data).suffix == ".npz":
        with np.load(data, allow_pickle=False) as file:
            x, y, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    else:
        raise SystemExit(f"--data must be cifar10, cifar100, digits or a file that ends in .npz. Received: {data!r}.")
    return (x, np.ravel(y)), (x_test, np.ravel(y_test))
