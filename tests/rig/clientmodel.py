"""Prometheus' client model for protobuf's own library: the part of metrics.proto that scrapes use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_F = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _F.TYPE_STRING,
    "double": _F.TYPE_DOUBLE,
    "uint64": _F.TYPE_UINT64,
    "uint32": _F.TYPE_UINT32,
    "sint32": _F.TYPE_SINT32,
    "sint64": _F.TYPE_SINT64,
    "int64": _F.TYPE_INT64,
    "int32": _F.TYPE_INT32,
}
# Message → its fields: name, number, type; `*` for repeated ones.
_MESSAGES = {
    "Timestamp": "seconds 1 int64, nanos 2 int32",
    "LabelPair": "name 1 string, value 2 string",
    "Exemplar": "label 1 LabelPair*, value 2 double, timestamp 3 Timestamp",
    "Gauge": "value 1 double",
    "Counter": "value 1 double, exemplar 2 Exemplar, created_timestamp 3 Timestamp",
    "Quantile": "quantile 1 double, value 2 double",
    "Summary": "sample_count 1 uint64, sample_sum 2 double, quantile 3 Quantile*, "
    "created_timestamp 4 Timestamp",
    "Untyped": "value 1 double",
    "Bucket": "cumulative_count 1 uint64, upper_bound 2 double, exemplar 3 Exemplar",
    "BucketSpan": "offset 1 sint32, length 2 uint32",
    "Histogram": "sample_count 1 uint64, sample_sum 2 double, bucket 3 Bucket*, schema 5 sint32, "
    "zero_threshold 6 double, zero_count 7 uint64, positive_span 12 BucketSpan*, positive_delta 13 sint64*, "
    "created_timestamp 15 Timestamp",
    "Metric": "label 1 LabelPair*, gauge 2 Gauge, counter 3 Counter, summary 4 Summary, untyped 5 Untyped, "
    "histogram 7 Histogram",
    "MetricFamily": "name 1 string, help 2 string, type 3 int32, metric 4 Metric*, unit 5 string",
}


def _family_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="client_model.proto", package="client_model", syntax="proto2"
    )
    for message, fields in _MESSAGES.items():
        descriptor = file.message_type.add(name=message)
        for text in fields.split(","):
            name, number, kind = text.split()
            field = descriptor.field.add(name=name, number=int(number))
            field.label = _F.LABEL_REPEATED if kind.endswith("*") else _F.LABEL_OPTIONAL
            kind = kind.removesuffix("*")
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type, field.type_name = _F.TYPE_MESSAGE, f".client_model.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("client_model.MetricFamily"))


MetricFamily = _family_class()


def families(body: bytes) -> Iterator[Any]:
    """The messages of an exposition; AssertionError for a field that the model does not have."""
    position = 0
    while position < len(body):
        length, shift = 0, 0
        while True:
            length |= (body[position] & 127) << shift
            shift, position = shift + 7, position + 1
            if body[position - 1] < 128:
                break
        family = MetricFamily()
        family.ParseFromString(body[position : position + length])
        again = family.SerializeToString()
        assert len(again) == length, f"{family.name}: {length} bytes, of which {len(again)} are in the model"
        yield family
        position += length


def labels_of(metric: Any) -> dict[str, str]:
    """The labels of a metric."""
    return {pair.name: pair.value for pair in metric.label}


def native_buckets(histogram: Any) -> dict[int, int]:
    """The counts of native buckets, by index."""
    counts, index, count = {}, 0, 0
    deltas = iter(histogram.positive_delta)
    for span in histogram.positive_span:
        index += span.offset
        for _ in range(span.length):
            count += next(deltas)
            counts[index] = count
            index += 1
    assert next(deltas, None) is None
    return counts
