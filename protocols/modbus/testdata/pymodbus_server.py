"""A pymodbus server: "tcp PORT" or "rtu DEVICE BAUD".

Units 1 and 2 have 1000 items in each table. Holding and input registers hold
their own number plus 1000 times (unit - 1); every third coil and every fifth
discrete input is on.
"""
import sys

from pymodbus.datastore import ModbusSequentialDataBlock, ModbusServerContext, ModbusSlaveContext
from pymodbus.server import StartSerialServer, StartTcpServer
from pymodbus.transaction import ModbusRtuFramer


def unit(number):
    def block(values):
        return ModbusSequentialDataBlock(0, list(values))

    return ModbusSlaveContext(
        co=block(i % 3 == 0 for i in range(1000)),
        di=block(i % 5 == 0 for i in range(1000)),
        hr=block(i + 1000 * (number - 1) for i in range(1000)),
        ir=block(i + 1000 * (number - 1) for i in range(1000)),
        zero_mode=True,
    )


context = ModbusServerContext(slaves={1: unit(1), 2: unit(2)}, single=False)
if sys.argv[1] == "tcp":
    StartTcpServer(context=context, address=("127.0.0.1", int(sys.argv[2])))
else:
    StartSerialServer(context=context, framer=ModbusRtuFramer, port=sys.argv[2],
                      baudrate=int(sys.argv[3]), stopbits=1, bytesize=8, parity="N")
