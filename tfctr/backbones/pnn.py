"""Product-based neural network (Qu et al., 2016, arXiv:1611.00144)."""

from collections.abc import Sequence
from typing import Any

from keras import ops
from keras_rs.layers import DotInteraction

from tfctr.backbones.backbone import Backbone, register
from tfctr.layers.kernel_product import KernelProduct
from tfctr.layers.mlp import MLP
from tfctr.schema import Schema

PRODUCTS = ("inner", "outer", "both")


@register("pnn")
class PNN(Backbone):
    """A deep tower over the fields and the products of all pairs: `q = mlp([x ; products])`.

    Inner products are `<e_i, e_j>`. Outer products are weighted sums over the matrix `e_i e_j^T`
    with weights for each pair, `e_i W_ij e_j`: the kernel form of Qu et al., 2018
    (arXiv:1807.00311). It costs a matrix `[D, D]` per pair.

    Args:
        schema: the fields, in order; two or more.
        embedding_dim: int. Width `D` of each field's vector. Defaults to 16.
        products: `"inner"`, `"outer"` or `"both"`. Defaults to `"inner"`.
        hidden_units: widths of the deep tower. Defaults to `(256, 128)`.
        dropout: float. In the deep tower. Defaults to 0.

    `represent` takes `[B, F, D]` and gives `[B, hidden_units[-1]]`.

    Raises:
        ValueError: no such `products`; a schema of one field.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        products: str = "inner",
        hidden_units: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if products not in PRODUCTS:
            raise ValueError(f"products: found {products!r}; allowed: {', '.join(PRODUCTS)}")
        if len(schema.inputs) < 2:
            raise ValueError(f"pnn: found {len(schema.inputs)} field; pairs need two or more")
        super().__init__(schema, embedding_dim, **kwargs)
        self.products = products
        self.hidden_units = tuple(hidden_units)
        self.dropout = dropout
        if products != "outer":
            self.inner = DotInteraction(name="inner")
        if products != "inner":
            self.outer = KernelProduct(name="outer")
        self.deep = MLP(hidden_units, dropout, name="deep")

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        num_fields, dim = embeddings.shape[1:]
        parts = [ops.reshape(embeddings, (-1, num_fields * dim))]
        if self.products != "outer":
            parts.append(self.inner(ops.unstack(embeddings, num=num_fields, axis=1)))
        if self.products != "inner":
            parts.append(self.outer(embeddings))
        return self.deep(ops.concatenate(parts, axis=1), training=training)
