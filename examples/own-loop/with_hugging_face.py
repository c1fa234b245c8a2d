"""Hugging Face's Trainer: a small vision transformer, built from its configuration, reads digits."""

from tempfile import mkdtemp

from digits import digits
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from dropout_trainer.loop import start
from dropout_trainer.loop.hugging_face import DropoutCallback

job = start()
train, val, test = digits()
model = ViTForImageClassification(ViTConfig(
    image_size=8, patch_size=4, num_channels=1, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
    hidden_dropout_prob=0.1, num_labels=10,
))
train_set, val_set = ([{"pixel_values": image, "labels": label} for image, label in zip(*part, strict=True)] for part in (train, val))
arguments = TrainingArguments(
    mkdtemp(), num_train_epochs=job.epochs, per_device_train_batch_size=32, per_device_eval_batch_size=512, learning_rate=2e-3,
    eval_strategy="epoch", save_strategy="epoch", logging_strategy="epoch", report_to="none", disable_tqdm=True,
    dataloader_pin_memory=False,
)
callback = DropoutCallback(job, model, test)
trainer = Trainer(
    model, arguments, train_dataset=train_set, eval_dataset={"train": train_set, "val": val_set}, callbacks=[callback],
)
trainer.train(resume_from_checkpoint=callback.resume_from())
