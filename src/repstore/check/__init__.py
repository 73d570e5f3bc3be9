"""Checks that anyone can run on what repstore promises. They read, and change nothing.

    history          is what clients were told consistent? the verdict
    history_file     the file: header, lines, what makes one unusable
    history_story    the smallest contradiction in words, with a picture
    recorder         writes such a file: wraps anything that reads and writes like a Volume
    nbd_observer     the same from the bytes of an NBD connection; sans-I/O
    progress         how far a long check is
    regular_file     files to read that have an end
    findings         what a check of a store has to say
    fsck             one store that nobody uses: every byte that something depends on
    store_maps       of it: metadata pages, and the pointers in the maps
    store_records    of it: the records in the segments, and the blocks they brought
    copies           what a running node says about its own copies: explain, scrub
    verify           whether copies are equal at one LSN
"""
