"""Every step of the protocol, by number: one table of what may happen.

A step is a function of rules.pxd or membership.pxd. What it takes besides its node says its kind.
"""
cimport tests.model.membership as membership
cimport tests.model.rules as rules
from tests.model.world cimport bounds_t, world_t

cdef enum:
    ALONE                          # a step of one node,
    PAIR                           # of one towards another,
    HEARD                          # of one that may have heard of another, or not,
    CUT                            # or of one and a number of LSNs

cdef enum:
    STEP_WRITE
    STEP_APPEND
    STEP_SAY_WRITTEN
    STEP_FLUSH
    STEP_REPLY
    STEP_REPLY_FLUSH
    STEP_LEARN
    STEP_COPY
    STEP_BEGIN_JOIN
    STEP_SAY_FLUSHED
    STEP_FORGET_LEARNER
    STEP_SUBMIT_EJECT
    STEP_SUBMIT_JOIN
    STEP_SUBMIT_PROMOTION
    STEP_WIN
    STEP_LOSE
    STEP_HEAR_OUTCOME
    STEP_READ_CONFIG
    STEP_STAND
    STEP_MOVE_UP
    STEP_SEAL
    STEP_PULL
    STEP_KILL
    STEP_CUT_POWER
    STEP_RESIGN
    STEP_FAIL
    STEP_START_AGAIN
    STEP_SUBMIT_LEAVE
    STEP_REFUSE_ONCE
    STEP_SEAL_LATE
    STEP_COUNT


cdef inline bint take(int step, world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """Take a step if it may happen now. False: it may not, and the world is as it was."""
    if step == STEP_WRITE:
        return rules.write(world, bounds, a, b)
    elif step == STEP_APPEND:
        return rules.append(world, bounds, a, b)
    elif step == STEP_SAY_WRITTEN:
        return rules.say_written(world, bounds, a, b)
    elif step == STEP_FLUSH:
        return rules.flush(world, bounds, a, b)
    elif step == STEP_REPLY:
        return rules.reply(world, bounds, a, b)
    elif step == STEP_REPLY_FLUSH:
        return rules.reply_flush(world, bounds, a, b)
    elif step == STEP_LEARN:
        return rules.learn(world, bounds, a, b)
    elif step == STEP_COPY:
        return rules.copy(world, bounds, a, b)
    elif step == STEP_BEGIN_JOIN:
        return rules.begin_join(world, bounds, a, b)
    elif step == STEP_SAY_FLUSHED:
        return rules.say_flushed(world, bounds, a, b)
    elif step == STEP_FORGET_LEARNER:
        return rules.forget_learner(world, bounds, a, b)
    elif step == STEP_SUBMIT_EJECT:
        return membership.submit_eject(world, bounds, a, b)
    elif step == STEP_SUBMIT_JOIN:
        return membership.submit_join(world, bounds, a, b)
    elif step == STEP_SUBMIT_PROMOTION:
        return membership.submit_promotion(world, bounds, a, b)
    elif step == STEP_WIN:
        return membership.win(world, bounds, a, b)
    elif step == STEP_LOSE:
        return membership.lose(world, bounds, a, b)
    elif step == STEP_HEAR_OUTCOME:
        return membership.hear_outcome(world, bounds, a, b)
    elif step == STEP_READ_CONFIG:
        return membership.read_config(world, bounds, a, b)
    elif step == STEP_STAND:
        return membership.stand(world, bounds, a, b)
    elif step == STEP_MOVE_UP:
        return membership.move_up(world, bounds, a, b)
    elif step == STEP_SEAL:
        return membership.seal(world, bounds, a, b)
    elif step == STEP_PULL:
        return membership.pull(world, bounds, a, b)
    elif step == STEP_KILL:
        return membership.kill(world, bounds, a, b)
    elif step == STEP_CUT_POWER:
        return membership.cut_power(world, bounds, a, b)
    elif step == STEP_RESIGN:
        return membership.resign(world, bounds, a, b)
    elif step == STEP_FAIL:
        return membership.fail(world, bounds, a, b)
    elif step == STEP_START_AGAIN:
        return membership.start_again(world, bounds, a, b)
    elif step == STEP_SUBMIT_LEAVE:
        return membership.submit_leave(world, bounds, a, b)
    elif step == STEP_REFUSE_ONCE:
        return membership.refuse_once(world, bounds, a, b)
    elif step == STEP_SEAL_LATE:
        return membership.seal_late(world, bounds, a, b)
    return False


cdef inline int kind_of(int step) noexcept nogil:
    """What a step takes besides its node."""
    if step in (STEP_WRITE, STEP_REPLY, STEP_REPLY_FLUSH, STEP_WIN, STEP_LOSE, STEP_HEAR_OUTCOME,
            STEP_READ_CONFIG, STEP_MOVE_UP, STEP_START_AGAIN, STEP_REFUSE_ONCE):
        return ALONE
    elif step == STEP_STAND:
        return HEARD
    elif step in (STEP_SUBMIT_PROMOTION, STEP_KILL, STEP_CUT_POWER, STEP_FAIL):
        return CUT
    return PAIR


cdef inline int arguments(int step, const bounds_t* bounds) noexcept nogil:
    """How many values that has: nodes, or LSNs from 0 on."""
    cdef int kind = kind_of(step)
    if kind == ALONE:
        return 1
    return bounds.lsns + 1 if kind == CUT else bounds.nodes


cdef inline bint is_crash(int step) noexcept nogil:
    """A step that a trace records, and that happens at no other time."""
    return step in (STEP_KILL, STEP_CUT_POWER, STEP_FAIL, STEP_START_AGAIN)
