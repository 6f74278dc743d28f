"""`data.decode.prepare` as an ONNX graph: uint8 images of any size in, the pictures that the net was trained on out.

ONNX's own Resize knows neither OpenCV's area averaging nor its fixed-point interpolation: its nearest modes differ by
up to some ten levels of 255. So the two are written out here in plain operators:

* shrinking: each output pixel is the mean of the input pixels it covers, covered parts as exact fractions (whole
  numbers of 1/size px); rows first, then columns. Parts of up to 1/1000 px are left out, and halves are rounded up
  where both sides are halved and else to even, as in OpenCV's `ResizeArea_Invoker` and `ResizeAreaFastVec`.
* enlarging: bilinear with weights of 11 bits, in whole numbers as in OpenCV's `HResizeLinear` and `VResizeLinear`.

Clips (N, T, H, W, C) go through it frame by frame. Then black borders or the middle, and gray <-> RGB by the weights of
15 bits of OpenCV's `RGB2Gray`. Of the area mean the order of the sums differs, so that a value exactly between two
levels may be rounded the other way; everything else is bit-equal. tests/ship/test_preprocessing.py holds both against
OpenCV.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18  # what torch exports without conversion; ONNX Runtime 1.14 and later
IR_VERSION = 10
IMAGE, PIXELS = "image", "pixels"  # input uint8 (N, H, W, C), C 1 or 3; output float32 (N, channels, size, size)

# the new height and width before borders or cropping, int64 [1] each; the same float64 steps as in Python
NEW_SIZE = {
    "squash": """
        nh = Add(size, zero)
        nw = Add(size, zero)""",
    "pad": """
        side = Max(h64, w64)
        scale = Div(size64, side)
        nh = SCALED(h64)
        nw = SCALED(w64)""",
    "crop": """
        side = Min(h64, w64)
        scale = Div(size64, side)
        nh = SCALED(h64)
        nw = SCALED(w64)""",
}
PLACED = {
    "squash": """
        placed = Identity(resized)""",
    "pad": """
        free_h = Sub(size, nh)
        free_w = Sub(size, nw)
        top = Div(free_h, two)
        left = Div(free_w, two)
        bottom = Sub(free_h, top)
        right = Sub(free_w, left)
        pads = Concat<axis = 0>(zero, top, left, zero, zero, bottom, right, zero)
        placed = Pad(resized, pads)""",
    "crop": """
        over_h = Sub(nh, size)
        over_w = Sub(nw, size)
        top = Div(over_h, two)
        left = Div(over_w, two)
        begin = Concat<axis = 0>(top, left)
        bottom = Add(top, size)
        right = Add(left, size)
        end = Concat<axis = 0>(bottom, right)
        axes = Constant<value_ints = [1, 2]>()
        placed = Slice(resized, begin, end, axes)""",
}

# of one axis of n px that becomes m: the input px each output px covers, int64 (m, taps), and how much of each, px
AREA_TAPS = """
        {p}_m0 = Squeeze({m})
        {p}_i = Range(zero0, {p}_m0, one0)
        {p}_start = Mul({p}_i, {n})
        {p}_first = Div({p}_start, {m})
        {p}_up = Add({n}, {m})
        {p}_up1 = Sub({p}_up, one)
        {p}_taps = Div({p}_up1, {m})
        {p}_k = Add({p}_taps, one)
        {p}_k0 = Squeeze({p}_k)
        {p}_t = Range(zero0, {p}_k0, one0)
        {p}_first2 = Unsqueeze({p}_first, one)
        {p}_j = Add({p}_first2, {p}_t)
        {p}_j1 = Add({p}_j, one)
        {p}_begin = Mul({p}_j, {m})
        {p}_end = Mul({p}_j1, {m})
        {p}_start2 = Unsqueeze({p}_start, one)
        {p}_stop2 = Add({p}_start2, {n})
        {p}_from = Max({p}_begin, {p}_start2)
        {p}_to = Min({p}_end, {p}_stop2)
        {p}_cover = Sub({p}_to, {p}_from)
        {p}_thousand = Mul({p}_cover, thousand)
        {p}_large = Greater({p}_thousand, {m})
        {p}_kept = Where({p}_large, {p}_cover, zero)
        {p}_keptf = Cast<to = 1>({p}_kept)
        {p}_mf = Cast<to = 1>({m})
        {p}_weight = Div({p}_keptf, {p}_mf)
        {p}_last = Sub({n}, one)
        {p}_at = Min({p}_j, {p}_last)"""

# of one axis: the two neighbours of each output px and their weights in 2048ths; at the border OpenCV takes the weight
# of one column as whole, and of one row in two parts, each rounded by itself
LINEAR_TAPS = """
        {p}_m0 = Squeeze({m})
        {p}_i = Range(zero0, {p}_m0, one0)
        {p}_i64 = Cast<to = 11>({p}_i)
        {p}_half = Add({p}_i64, half64)
        {p}_n64 = Cast<to = 11>({n})
        {p}_m64 = Cast<to = 11>({m})
        {p}_ratio = Div({p}_m64, {p}_n64)
        {p}_scale = Div(unit64, {p}_ratio)
        {p}_far = Mul({p}_half, {p}_scale)
        {p}_place64 = Sub({p}_far, half64)
        {p}_place = Cast<to = 1>({p}_place64)
        {p}_floor = Floor({p}_place)
        {p}_s = Cast<to = 7>({p}_floor)
        {p}_f = Sub({p}_place, {p}_floor)
        {p}_last = Sub({n}, one)
        {p}_next = Add({p}_s, one)
        {p}_at0 = Clip({p}_s, zero0, {p}_last0)
        {p}_at1 = Clip({p}_next, zero0, {p}_last0)"""
WEIGHTS = """
        {p}_g = Sub(onef, {p}_part)
        {p}_f11 = Mul({p}_part, k2048)
        {p}_g11 = Mul({p}_g, k2048)
        {p}_fr = Round({p}_f11)
        {p}_gr = Round({p}_g11)
        {p}_w1 = Cast<to = 6>({p}_fr)
        {p}_w0 = Cast<to = 6>({p}_gr)"""

AREA = (
    AREA_TAPS.format(p="h", n="height", m="nh")
    + AREA_TAPS.format(p="w", n="width", m="nw")
    + """
        rows8 = Gather<axis = 1>(image, h_at)
        wide = Mul(width, depth)
        rows_shape = Concat<axis = 0>(keep, keep, keep, wide)
        rows_flat = Reshape(rows8, rows_shape)
        rowsf = Cast<to = 1>(rows_flat)
        h_weight3 = Unsqueeze(h_weight, one)
        summed = MatMul(h_weight3, rowsf)
        summed_shape = Concat<axis = 0>(keep, keep, width, depth)
        summed4 = Reshape(summed, summed_shape)
        columns = Gather<axis = 2>(summed4, w_at)
        minus = Constant<value_ints = [-1]>()
        w_weight3 = Unsqueeze(w_weight, minus)
        weighted = Mul(columns, w_weight3)
        three = Constant<value_ints = [3]>()
        total = ReduceSum<keepdims = 0>(weighted, three)
        out_px = Mul(nh, nw)
        in_px = Mul(height, width)
        out64 = Cast<to = 11>(out_px)
        in64 = Cast<to = 11>(in_px)
        share64 = Div(out64, in64)
        share = Cast<to = 1>(share64)
        mean = Mul(total, share)
        even = Round(mean)
        halff = Constant<value_float = 0.5>()
        higher = Add(mean, halff)
        upward = Floor(higher)
        nh2 = Mul(nh, two)
        nw2 = Mul(nw, two)
        halved_h = Equal(height, nh2)
        halved_w = Equal(width, nw2)
        halved = And(halved_h, halved_w)
        averaged = Where(halved, upward, even)"""
)
LINEAR = (
    """
        k_half = Constant<value_float = 0.5>()
        half64 = Cast<to = 11>(k_half)
        unit64 = Cast<to = 11>(onef)
        height_last = Sub(height, one)
        width_last = Sub(width, one)
        h_last0 = Squeeze(height_last)
        w_last0 = Squeeze(width_last)"""
    + LINEAR_TAPS.format(p="h", n="height", m="nh")
    + LINEAR_TAPS.format(p="w", n="width", m="nw")
    + """
        h_part = Identity(h_f)
        w_before = Less(w_s, zero)
        w_behind = GreaterOrEqual(w_s, w_last)
        w_outside = Or(w_before, w_behind)
        w_part = Where(w_outside, zerof, w_f)"""
    + WEIGHTS.format(p="h")
    + WEIGHTS.format(p="w")
    + """
        left8 = Gather<axis = 2>(image, w_at0)
        right8 = Gather<axis = 2>(image, w_at1)
        left32 = Cast<to = 6>(left8)
        right32 = Cast<to = 6>(right8)
        minus = Constant<value_ints = [-1]>()
        w_w0c = Unsqueeze(w_w0, minus)
        w_w1c = Unsqueeze(w_w1, minus)
        from_left = Mul(left32, w_w0c)
        from_right = Mul(right32, w_w1c)
        across = Add(from_left, from_right)
        k16 = Constant<value_int = 16>()
        k16_32 = Cast<to = 6>(k16)
        across11 = Div(across, k16_32)
        upper = Gather<axis = 1>(across11, h_at0)
        lower = Gather<axis = 1>(across11, h_at1)
        last_two = Constant<value_ints = [-2, -1]>()
        h_w0c = Unsqueeze(h_w0, last_two)
        h_w1c = Unsqueeze(h_w1, last_two)
        from_upper = Mul(upper, h_w0c)
        from_lower = Mul(lower, h_w1c)
        k65536 = Constant<value_int = 65536>()
        k65536_32 = Cast<to = 6>(k65536)
        upper16 = Div(from_upper, k65536_32)
        lower16 = Div(from_lower, k65536_32)
        both = Add(upper16, lower16)
        two32 = Cast<to = 6>(two)
        both2 = Add(both, two32)
        k4 = Constant<value_int = 4>()
        k4_32 = Cast<to = 6>(k4)
        quarter = Div(both2, k4_32)
        interpolated = Cast<to = 1>(quarter)"""
)
# weights of R, G, B in 32768ths; of a gray image the last one, 32768 of it
COLOURS = {
    1: """
        k_colours = Constant<value_floats = [9798.0, 19235.0, 3735.0, 32768.0]>()
        three_ = Constant<value_ints = [3]>()
        is_rgb = Equal(depth, three_)
        from_ = Where(is_rgb, zero, three_)
        until = Add(from_, depth)
        weights = Slice(k_colours, from_, until)
        weights_c = Unsqueeze(weights, one)
        luma = MatMul(placed, weights_c)
        k16384 = Constant<value_float = 16384.0>()
        k32768 = Constant<value_float = 32768.0>()
        luma_up = Add(luma, k16384)
        luma_16 = Div(luma_up, k32768)
        coloured = Floor(luma_16)""",
    3: """
        one_by_one = Constant<value_ints = [1, 1, 1, 3]>()
        coloured = Expand(placed, one_by_one)""",
}
# of clips of T frames: the frames of all clips are one batch on the way
FOLD = """
        of_frame = Shape<start = 2>(image)
        every = Constant<value_ints = [-1]>()
        of_frames = Concat<axis = 0>(every, of_frame)
        frames = Reshape(image, of_frames)"""
UNFOLD = """
        of_clips = Constant<value_ints = [-1, {frames}, {channels}, {size}, {size}]>()
        pixels = Reshape(pictures, of_clips)"""
GRAPH = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
prepare (uint8[{every}height, width, depth] image) => (float[{every}{channels}, {size}, {size}] pixels) {{{fold}
        shape = Shape({source})
        batch, height, width, depth = Split<axis = 0, num_outputs = 4>(shape)
        size = Constant<value_ints = [{size}]>()
        zero = Constant<value_ints = [0]>()
        one = Constant<value_ints = [1]>()
        two = Constant<value_ints = [2]>()
        keep = Constant<value_ints = [0]>()
        zero0 = Constant<value_int = 0>()
        one0 = Constant<value_int = 1>()
        thousand = Constant<value_int = 1000>()
        onef = Constant<value_float = 1.0>()
        zerof = Constant<value_float = 0.0>()
        k2048 = Constant<value_float = 2048.0>()
        one64 = Cast<to = 11>(one)
        size64 = Cast<to = 11>(size)
        h64 = Cast<to = 11>(height)
        w64 = Cast<to = 11>(width){new_size}
        lower_h = LessOrEqual(nh, height)
        lower_w = LessOrEqual(nw, width)
        shrinks = And(lower_h, lower_w)
        resized = If (shrinks) <
            then_branch = area () => (float[batch, new_height, new_width, depth] averaged) {{{area}
            }},
            else_branch = linear () => (float[batch, new_height, new_width, depth] interpolated) {{{linear}
            }}
        >{placed}{colours}
        {made} = Transpose<perm = [0, 3, 1, 2]>(coloured){unfold}
}}
"""
SCALED = """{name}_times = Mul({side}, scale)
        {name}_near = Round({name}_times)
        {name}_least = Max({name}_near, one64)
        {name} = Cast<to = 7>({name}_least)"""


def text(size: int, resize: str, channels: int, frames: int = 1) -> str:
    """The graph in ONNX's own notation.

    Args:
        size: px, of the prepared (square) pictures.
        resize: "squash", "pad" or "crop", as `data.resize`.
        channels: 1 or 3, of the prepared pictures; images with 1 and with 3 channels are taken.
        frames: of a clip; 1: of images.
    """
    new_size = NEW_SIZE[resize]
    for name, side in (("nh", "h64"), ("nw", "w64")):
        new_size = new_size.replace(f"{name} = SCALED({side})", SCALED.format(name=name, side=side))
    clips, source = frames > 1, "frames" if frames > 1 else IMAGE
    return GRAPH.format(
        ir=IR_VERSION,
        opset=OPSET,
        channels=channels,
        size=size,
        every=f"batch, {frames}, " if clips else "batch, ",
        fold=FOLD if clips else "",
        source=source,
        new_size=new_size,
        area=AREA.replace(f"({IMAGE},", f"({source},"),
        linear=LINEAR.replace(f"({IMAGE},", f"({source},"),
        placed=PLACED[resize],
        colours=COLOURS[channels],
        made="pictures" if clips else PIXELS,
        unfold=UNFOLD.format(frames=frames, channels=channels, size=size) if clips else "",
    )


def preprocessing(size: int, resize: str, channels: int, frames: int = 1) -> ModelProto:
    """The graph as a model: input `IMAGE` uint8 (N, H, W, C), output `PIXELS` float32 (N, channels, size, size).

    Of clips the input is (N, T, H, W, C), the output (N, T, channels, size, size).
    """
    import onnx.parser

    return onnx.parser.parse_model(text(size, resize, channels, frames))
