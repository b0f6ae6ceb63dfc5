/* Two threads parse one document over and over and count what they saw. */
#include "loop.h"

#include <expat.h>

static char document[20000];
static int document_length;
static long expected;

static void XMLCALL on_element(void *user, const char *name, const char **attributes) {
    (void)name;
    long *count = user;
    ++*count;
    while (*attributes) attributes += 2;
}

static void XMLCALL on_text(void *user, const char *text, int length) {
    (void)text;
    long *count = user;
    *count += length;
}

/* Parses in pieces; returns whether the document was accepted. */
static int parse(const char *text, int length, long *count, enum XML_Error *error) {
    enum { PIECE = 777 };
    XML_Parser parser = XML_ParserCreate(NULL);
    int ok = 1;
    *count = 0;
    XML_SetUserData(parser, count);
    XML_SetElementHandler(parser, on_element, NULL);
    XML_SetCharacterDataHandler(parser, on_text);
    for (int at = 0; at < length && ok; at += PIECE) {
        int piece = length - at < PIECE ? length - at : PIECE;
        memcpy(XML_GetBuffer(parser, piece), text + at, (size_t)piece);
        ok = XML_ParseBuffer(parser, piece, at + piece >= length) == XML_STATUS_OK;
    }
    *error = XML_GetErrorCode(parser);
    XML_ParserFree(parser);
    return ok;
}

static int work(unsigned long round) {
    (void)round;
    long count;
    enum XML_Error error;
    return !parse(document, document_length, &count, &error) || count != expected;
}

/* "negative" asks what XML_ParseBuffer makes of a negative length; anything else is parsed as a document. */
static void query(const char *line, char *answer, size_t size) {
    if (!strcmp(line, "negative")) {
        XML_Parser parser = XML_ParserCreate(NULL);
        XML_GetBuffer(parser, 64);
        int status = XML_ParseBuffer(parser, -1, 0);
        snprintf(answer, size, "status=%d error=%d", status, XML_GetErrorCode(parser));
        XML_ParserFree(parser);
        return;
    }
    long count;
    enum XML_Error error;
    int ok = parse(line, (int)strlen(line), &count, &error);
    snprintf(answer, size, "ok=%d count=%ld error=%s", ok, count, error ? XML_ErrorString(error) : "none");
}

int main(int argc, char **argv) {
    char *end = document;
    end += sprintf(end, "<?xml version='1.0'?><!DOCTYPE r [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><r>");
    for (int i = 0; i < 300; i++) end += sprintf(end, "<item id='%d' k=\"v&amp;\">text %d &b;</item>", i, i);
    end += sprintf(end, "</r>");
    document_length = (int)(end - document);
    enum XML_Error error;
    if (!parse(document, document_length, &expected, &error)) {
        fprintf(stderr, "the document is not accepted: %d\n", error);
        return 1;
    }
    loop_main(argc, argv);
}
