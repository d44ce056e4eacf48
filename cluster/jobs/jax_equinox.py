import equinox as eqx
import jax


def build(data_spec, hidden=128):
    rows, columns = data_spec.input_shape

    def new(key):
        return eqx.nn.MLP(rows * columns, data_spec.classes, hidden, depth=1, key=key)

    static = eqx.filter(new(jax.random.key(0)), eqx.is_array, inverse=True)

    def init(key):
        return eqx.filter(new(key), eqx.is_array)

    def predict(params, x):
        return jax.vmap(eqx.combine(params, static))(x.reshape(len(x), -1))

    def loss(params, batch):
        scores = jax.nn.log_softmax(predict(params, batch.x))
        return -jax.numpy.take_along_axis(scores, batch.y[:, None], axis=1).mean()

    return init, loss, predict
