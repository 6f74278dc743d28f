"""The Keras half of row 6, run by the Python of a virtual environment of its own: imports nothing of stillframe.

Reads lines from stdin; for each trains one epoch and prints "epoch <CPU-seconds> <seconds>". The net, the loss, the
optimizer and the batch size are those of conf/experiment/fashion_mnist_cnn.yaml.
"""

import sys
import time

import keras
import numpy as np
import tensorflow as tf


def textbook(classes: int) -> keras.Model:
    layers = keras.layers
    net = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(classes, activation="softmax"),
        ]
    )
    net.compile(optimizer=keras.optimizers.Adam(1e-3), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return net


def main(threads: int, images: int, val: int, batch: int) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (images + val, 28, 28, 1), dtype=np.uint8).astype("float32") / 255
    y = np.arange(images + val) % 10
    net = textbook(10)
    print("ready", keras.__version__, tf.__version__, flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        held_out = (x[images:], y[images:])
        net.fit(x[:images], y[:images], batch_size=batch, epochs=1, verbose=0, validation_data=held_out)
        print("epoch", time.process_time() - cpu, time.perf_counter() - wall, flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
