"""Training: point-in-time sets from the offline store, XGBoost models, their evaluation, and the model registry."""
