/* Threads that write and read a database in memory, one each, and check what they read. */
#include "loop.h"

#include "sqlite3.h"

static __thread sqlite3 *database;
static __thread sqlite3_stmt *insert, *aggregate, *range;
static sqlite3 *query_database;

static int open_database(sqlite3 **into) {
    if (sqlite3_open(":memory:", into)) return 1;
    return sqlite3_exec(*into,
                        "create table t(a integer primary key, b text, c real);"
                        "create index ti on t(b);",
                        NULL, NULL, NULL);
}

static int prepare_thread(void) {
    if (open_database(&database)) return 1;
    return sqlite3_prepare_v2(database, "insert or replace into t values(?1, ?2, ?3)", -1, &insert, NULL) ||
           sqlite3_prepare_v2(database,
                              "select count(*), sum(c), max(b), group_concat(substr(b, 1, 1)) from t"
                              " where a between ?1 and ?2",
                              -1, &aggregate, NULL) ||
           sqlite3_prepare_v2(database, "select b, c from t where b >= ?1 order by b limit 5", -1, &range, NULL);
}

static int work(unsigned long round) {
    if (!database && prepare_thread()) return 1;
    char key[32];
    long row = (long)(round % 5000);
    int wrong = 0;
    snprintf(key, sizeof key, "k%07lu", (round * 7919) % 100003);

    sqlite3_bind_int64(insert, 1, row);
    sqlite3_bind_text(insert, 2, key, -1, SQLITE_TRANSIENT);
    sqlite3_bind_double(insert, 3, (double)round * 0.5);
    wrong |= sqlite3_step(insert) != SQLITE_DONE;
    sqlite3_reset(insert);

    sqlite3_bind_int64(aggregate, 1, row > 50 ? row - 50 : 0);
    sqlite3_bind_int64(aggregate, 2, row);
    wrong |= sqlite3_step(aggregate) != SQLITE_ROW || sqlite3_column_int(aggregate, 0) < 1;
    sqlite3_reset(aggregate);

    sqlite3_bind_text(range, 1, key, -1, SQLITE_TRANSIENT);
    wrong |= sqlite3_step(range) != SQLITE_ROW;
    sqlite3_reset(range);
    return wrong;
}

static int on_row(void *into, int columns, char **values, char **names) {
    (void)names;
    char *text = into;
    for (int i = 0; i < columns && i < 4 && strlen(text) < 1000; i++) {
        strncat(text, values[i] ? values[i] : "NULL", 200);
        strcat(text, "|");
    }
    return 0;
}

/* Runs the line as SQL. */
static void query(const char *line, char *answer, size_t size) {
    char rows[2048] = "", *message = NULL;
    if (!query_database) open_database(&query_database);
    int status = sqlite3_exec(query_database, line, on_row, rows, &message);
    if (status)
        snprintf(answer, size, "ERROR %d %s", status, message ? message : "");
    else
        snprintf(answer, size, "OK %s", rows);
    sqlite3_free(message);
}

int main(int argc, char **argv) {
    sqlite3_config(SQLITE_CONFIG_MULTITHREAD);
    loop_main(argc, argv);
}
