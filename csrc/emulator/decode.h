// From the text of an instruction to the steps that run. Whatever is left of an instruction's words when its decoder is
// done is refused by name: nothing is skipped.
#pragma once
#include <map>
#include <string>
#include <unordered_map>

#include "emulator/flow.h"
#include "emulator/handlers.h"
#include "emulator/registers.h"

namespace vlmk::emulator {

class Decoder {
  public:
    Decoder(const Flow& flow, const std::vector<uint64_t>& addresses, Program& program);
    void run();

  private:
    using Method = void (Decoder::*)();
    static const std::unordered_map<std::string, Method>& methods();

    [[noreturn]] void refuse(const std::string& what) const;
    [[noreturn]] void wrong(const std::string& what) const;

    // The words of the instruction.
    bool take(const std::string& word);
    Type take_type();  // the next word that is a type; refused without one
    Type take_type_or(Type otherwise);
    Rounding take_rounding();
    template <class T>
    bool take_one(const std::map<std::string, T>& choices, T& value) {
        for (size_t i = 0; i < words_.size(); ++i)
            if (auto found = choices.find(words_[i]); found != choices.end()) {
                value = found->second;
                words_.erase(words_.begin() + static_cast<std::ptrdiff_t>(i));
                return true;
            }
        return false;
    }

    // Operands.
    const Operand& operand(size_t i) const;
    size_t operands() const { return node_->instruction.operands.size(); }
    bool has(size_t i) const { return i < operands(); }
    uint32_t source(const Operand& o, Type type);
    uint32_t source(size_t i, Type type) { return source(operand(i), type); }
    uint32_t destination(const Operand& o, Type type);
    uint32_t destination(size_t i, Type type) { return destination(operand(i), type); }
    uint16_t predicate(const Operand& o);  // a register; kNoPredicate for _
    uint16_t predicate(size_t i) { return predicate(operand(i)); }
    Type register_type(const Operand& o) const;
    bool is_predicate(const Operand& o) const;
    uint64_t immediate(size_t i);
    uint32_t constant(uint64_t bits, uint32_t bytes);
    uint32_t special(const std::string& name);
    // Fills a (the base), value (the offset), space and kAddress64.
    void address(const Operand& o, AddressSpace space, Op& op);
    AddressSpace take_space();                               // of a memory instruction
    void writes_shared(AddressSpace space, uint32_t bytes);  // where it may: races are told apart that finely
    uint64_t variable_value(const Operand& o);
    uint32_t add_list(const std::vector<uint32_t>& operands);

    Op begin(InstructionClass instruction_class, Handler handler);
    void emit(Op op);
    void emit_extra(Op op);  // a further step of the instruction
    void after_saturate(bool saturate, bool relu, Type type, uint32_t d);
    void member_mask(Op& op, const Operand& o);

    // By family: decode_integer.cpp, ...
    void integer_arithmetic(const std::string& name);
    void add_sub();
    void mul_mad();
    void mul24_mad24();
    void div_rem();
    void min_max();
    void abs_neg();
    void carries(bool multiply);
    void count_bits();
    void bit_field();
    void sized_bits();
    void logic();
    void lop3();
    void shift();
    void funnel_shift();
    void prmt();
    void dot_product();
    void sad();

    void float_arithmetic(FloatOp op, Type type, int sources);
    void fma();
    void approximate();
    void testp();
    void copysign();
    void float_extreme(Type type, bool maximum);

    void setp();
    void set();
    void selp();
    void slct();
    uint32_t relations();
    void combine_with(Op& op, size_t i);

    void mov();
    void mov_vector(Type type);
    void cvt();
    void cvt_pack();
    void cvta();
    void isspacep();
    void clocks();

    void ld();
    void st();
    void atom();
    void red();
    void atomic(bool returns);
    void hint();
    void createpolicy();
    bool memory_qualifiers();  // true for strong accesses
    uint32_t vector_width();
    std::vector<const Operand*> elements(const Operand& o, uint32_t width);

    void bar();
    void warp_collective();
    void shfl();
    void vote();
    void match();
    void redux();
    void elect();
    void ldmatrix();
    void stmatrix();
    void movmatrix();
    void mma();
    void cp();
    void mbarrier();

    void branch();
    void exit();
    void trap();
    void call();
    void nothing();

    const Flow& flow_;
    const std::vector<uint64_t>& addresses_;
    Program& program_;
    RegisterPlan plan_;
    const HandlerTable& handlers_;
    const Node* node_ = nullptr;
    std::vector<std::string> words_;
    mutable size_t looked_at_ = 0;  // operands that a decoder has asked for
    std::map<std::pair<uint64_t, uint32_t>, uint32_t> constants_;
    std::map<Special, uint32_t> specials_;
    uint16_t carry_ = kNoPredicate;
    std::vector<uint32_t> op_of_node_;
};

bool is_half(Type type);  // f16, bf16 and their pairs
uint32_t half_flags(Type type, bool flush);
Handler rounded_handler(FloatOp op, Type type, Rounding rounding, bool flush);

}  // namespace vlmk::emulator
