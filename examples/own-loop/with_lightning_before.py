"""A Lightning module and its Trainer: a convolutional network reads digits."""

from digits import digits
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

seed_everything(1)


class Reader(LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(256, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10),
        )

    def forward(self, inputs):
        return self.layers(inputs)

    def training_step(self, batch, number):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss_with_dropout", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, number, dataloader_idx=0):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log(("val_loss", "train_loss")[dataloader_idx], loss, add_dataloader_idx=False)

    def configure_optimizers(self):
        optimizer = optim.AdamW(self.parameters(), lr=3e-3)
        return [optimizer], [optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.max_epochs)]


train, val, test = digits()
batches = DataLoader(TensorDataset(*train), batch_size=64, shuffle=True)
measured = [DataLoader(TensorDataset(*part), batch_size=512) for part in (val, train)]
trainer = Trainer(max_epochs=12, accelerator="auto", log_every_n_steps=10)
trainer.fit(Reader(), batches, measured)
