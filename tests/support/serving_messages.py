"""Configuration messages of TensorFlow Serving that its package lacks.

Names and types are those of session_bundle_config.proto and monitoring_config.proto;
the numbers do not matter to text.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_MESSAGES = {
    "Value": {"value": "int64"},
    "BatchingParameters": {
        "max_batch_size": "Value",
        "batch_timeout_micros": "Value",
        "max_enqueued_batches": "Value",
        "num_batch_threads": "Value",
        "allowed_batch_sizes": "int64+",
        "pad_variable_length_inputs": "bool",
    },
    "PrometheusConfig": {"enable": "bool", "path": "string"},
    "MonitoringConfig": {"prometheus_config": "PrometheusConfig"},
}


def _classes():
    file = descriptor_pb2.FileDescriptorProto(name="configs.proto", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (key, kind) in enumerate(fields.items(), 1):
            field = message.field.add(name=key, number=number)
            field.label = (
                _FIELD.LABEL_REPEATED if kind[-1] == "+" else _FIELD.LABEL_OPTIONAL
            )
            kind = kind.rstrip("+")
            if kind in _MESSAGES:
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{kind}"
            else:
                field.type = getattr(_FIELD, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(name) for name in _MESSAGES)
    return [message_factory.GetMessageClass(message) for message in found]


_, BatchingParameters, _, MonitoringConfig = _classes()
