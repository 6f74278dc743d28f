"""Training with PyTorch Lightning: module, loop, callbacks, resume, fine-tuning, distillation."""
