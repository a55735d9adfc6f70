"""The in-process layer keeps what the stock one drops."""

from channels.layers import channel_layers

from push.layers import InProcessChannelLayer


async def test_a_burst_above_the_stock_capacity_arrives():
    layer = InProcessChannelLayer()
    channel = await layer.new_channel()
    await layer.group_add("g", channel)
    for n in range(1000):
        await layer.group_send("g", {"type": "t", "n": n})
    assert [(await layer.receive(channel))["n"] for _ in range(1000)] == list(range(1000))


async def test_no_membership_expires():
    layer = InProcessChannelLayer(expiry=0, group_expiry=0)
    channel = await layer.new_channel()
    await layer.group_add("g", channel)
    await layer.group_send("g", {"type": "t", "n": 1})
    await layer.group_send("g", {"type": "t", "n": 2})
    assert [(await layer.receive(channel))["n"] for _ in range(2)] == [1, 2]


def test_it_is_what_the_embedded_mode_makes(settings):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "push.layers.InProcessChannelLayer"}}
    assert isinstance(channel_layers["default"], InProcessChannelLayer)
