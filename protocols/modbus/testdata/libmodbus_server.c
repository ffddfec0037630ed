/* A libmodbus server: "tcp PORT" or "rtu DEVICE BAUD". It is one unit with 1000
 * items in each table: registers hold their own number, every third coil and
 * every fifth discrete input is on. */
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

enum { SIZE = 1000 };

static int serve_one(modbus_t *ctx, modbus_mapping_t *map)
{
	uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
	int n = modbus_receive(ctx, query);
	if (n > 0)
		return modbus_reply(ctx, query, n, map);
	return n; /* 0: not for us; -1: closed or damaged */
}

static void serve_tcp(modbus_t *ctx, modbus_mapping_t *map)
{
	int listener = modbus_tcp_listen(ctx, 8), last = listener;
	fd_set all;
	if (listener < 0) {
		perror("listen");
		exit(1);
	}
	FD_ZERO(&all);
	FD_SET(listener, &all);
	for (;;) {
		fd_set ready = all;
		if (select(last + 1, &ready, NULL, NULL, NULL) < 0)
			exit(1);
		for (int fd = 0; fd <= last; fd++) {
			if (!FD_ISSET(fd, &ready))
				continue;
			if (fd == listener) {
				int conn = modbus_tcp_accept(ctx, &listener);
				if (conn >= 0) {
					FD_SET(conn, &all);
					if (conn > last)
						last = conn;
				}
				continue;
			}
			modbus_set_socket(ctx, fd);
			if (serve_one(ctx, map) < 0) {
				close(fd);
				FD_CLR(fd, &all);
			}
		}
	}
}

int main(int argc, char **argv)
{
	modbus_mapping_t *map = modbus_mapping_new(SIZE, SIZE, SIZE, SIZE);
	modbus_t *ctx;
	if (argc < 3 || map == NULL)
		return 2;
	for (int i = 0; i < SIZE; i++) {
		map->tab_bits[i] = i % 3 == 0;
		map->tab_input_bits[i] = i % 5 == 0;
		map->tab_registers[i] = map->tab_input_registers[i] = i;
	}
	if (strcmp(argv[1], "tcp") == 0) {
		ctx = modbus_new_tcp("127.0.0.1", atoi(argv[2]));
		serve_tcp(ctx, map);
	}
	ctx = modbus_new_rtu(argv[2], atoi(argv[3]), 'N', 8, 1);
	modbus_set_slave(ctx, 1);
	if (modbus_connect(ctx) < 0) {
		perror(argv[2]);
		return 1;
	}
	for (;;)
		serve_one(ctx, map);
}
