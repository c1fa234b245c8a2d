"""A training loop in plain PyTorch: a convolutional network reads digits."""

import torch
from digits import digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dropout_trainer.loop import start

job = start()
EPOCHS = job.epochs

train, val, test = digits()
model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    nn.Linear(256, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10),
)
job.apply(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
batches = DataLoader(TensorDataset(*train), batch_size=64, shuffle=True)


@torch.no_grad()
def loss_on(part):
    model.eval()
    return nn.functional.cross_entropy(model(part[0]), part[1]).item()


done = job.resume(model, optimizer, scheduler)
for epoch in range(done + 1, EPOCHS + 1):
    model.train()
    for inputs, targets in batches:
        loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scheduler.step()
    job.log(epoch, train_loss=loss_on(train), val_loss=loss_on(val))
    job.save(epoch)

accuracy = (model(test[0]).argmax(1) == test[1]).float().mean()
print(f"test accuracy {accuracy:.3f}")
job.export(model, test)
