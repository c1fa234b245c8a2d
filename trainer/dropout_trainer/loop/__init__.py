"""A training loop of one's own, with the platform's dropout plan, run, checkpoints, gate and registration.

    from dropout_trainer.loop import start

    job = start()
    ...                                                # data, model
    job.apply(model)
    ...                                                # optimiser, scheduler
    for epoch in range(job.resume(model, optimizer) + 1, job.epochs + 1):
        ...                                            # train and measure
        job.log(epoch, train_loss=train_loss, val_loss=val_loss)
        job.save(epoch)
    job.export(model, (test_inputs, test_targets))

A job starts such a program through spec.command. For Lightning and Hugging Face's Trainer the modules `lightning` and `hugging_face` have
a callback that does the same.
"""

from dropout_trainer.data import Data, Split
from dropout_trainer.loop.job import Job
from dropout_trainer.loop.starting import start

__all__ = ["Data", "Job", "Split", "start"]
