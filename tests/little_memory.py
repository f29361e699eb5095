"""Little memory: networks that run out of it, for tests of what happens then."""

import keras


def refuse_batches(monkeypatch, refused, error=None):
    """Makes a network run out of memory on the batches of which `refused(model, batch)` is true."""
    predict = keras.Model.predict_on_batch

    def predict_on_batch(self, batch):
        if refused(self, batch):
            raise error or MemoryError("no room")
        return predict(self, batch)

    monkeypatch.setattr(keras.Model, "predict_on_batch", predict_on_batch)
