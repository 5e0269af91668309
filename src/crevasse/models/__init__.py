"""What learns."""

from crevasse.models.base import Model, ModelConfig, count_parameters, losses
from crevasse.spec import Entry, Table

MODELS: Table[ModelConfig] = Table(
    "model",
    {
        "transformer": Entry("crevasse.models.transformer:TransformerConfig", "pre-LN decoder"),
        "looped": Entry("crevasse.models.transformer:LoopedConfig", "one block tied over depth, input injected"),
        "gru": Entry("crevasse.models.recurrent:GruConfig", "gated recurrent unit"),
        "lstm": Entry("crevasse.models.recurrent:LstmConfig", "long short-term memory"),
        "bilinear": Entry("crevasse.models.recurrent:BilinearConfig", "the crevasse cell: state times symbol"),
        "mlp": Entry("crevasse.models.mlp:MlpConfig", "embeddings side by side, hidden layers; prompts of one length"),
        "conv": Entry("crevasse.models.conv:ConvConfig", "two convolutions, for square pictures"),
        "pretrained": Entry("crevasse.models.pretrained:PretrainedConfig", "a language model: pretrained:NAME|FOLDER"),
    },
)

__all__ = ["MODELS", "Model", "ModelConfig", "count_parameters", "losses"]
