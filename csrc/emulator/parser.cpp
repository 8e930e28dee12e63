#include <algorithm>
#include <unordered_map>

#include "core/error.h"
#include "emulator/ast.h"
#include "emulator/lexer.h"

namespace vlmk::emulator {
namespace {

struct Scope {
    std::unordered_map<std::string, int32_t> registers, labels, variables;
};

class Parser {
  public:
    explicit Parser(const std::string& ptx) : tokens_(tokenize(ptx)) { scopes_.emplace_back(); }

    Ast run() {
        while (peek().kind != Token::Kind::end) module_item();
        return std::move(ast_);
    }

  private:
    const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
    const Token& next() { return tokens_[at_ < tokens_.size() - 1 ? at_++ : at_]; }
    bool take(char c) {
        if (!peek().is(c)) return false;
        next();
        return true;
    }
    bool take(const char* word) {
        if (!peek().is(std::string_view(word))) return false;
        next();
        return true;
    }
    void expect(char c) {
        if (!take(c)) fail(std::string("expected '") + c + "', found '" + std::string(peek().text) + "'");
    }
    std::string word() {
        if (peek().kind != Token::Kind::word) fail("expected a name, found '" + std::string(peek().text) + "'");
        return std::string(next().text);
    }
    uint64_t integer() {
        const bool negative = take('-');
        if (peek().kind != Token::Kind::number) fail("expected a number, found '" + std::string(peek().text) + "'");
        const uint64_t bits = parse_number(next()).bits;
        return negative ? uint64_t{0} - bits : bits;
    }
    [[noreturn]] void fail(const std::string& message) const { syntax_error(peek().line, message); }
    [[noreturn]] void refuse(const std::string& what) const {
        throw NotImplemented("PTX line " + std::to_string(peek().line) + ": the emulator does not know " + what);
    }
    void skip_line(uint32_t line) {
        while (peek().kind != Token::Kind::end && peek().line == line) next();
    }
    void skip_braces() {
        expect('{');
        for (int depth = 1; depth > 0;) {
            if (peek().kind == Token::Kind::end) fail("'{' without '}'");
            const Token& token = next();
            depth += token.is('{') ? 1 : token.is('}') ? -1 : 0;
        }
    }

    void module_item();
    bool debug_directive();
    void function(bool entry);
    std::vector<int32_t> parameters(Function& function);
    void body(Function& function);
    void block(Function& function);
    void registers(Function& function);
    bool variable_space(Space& space);
    int32_t variable(Space space, bool external, bool single);
    void initializers(Variable& variable);
    Initializer initializer();
    void instruction(Function& function);
    Operand operand(const Function& function);
    Operand named(const std::string& name);
    void address(Operand& operand);
    template <class Map>
    int32_t look_up(Map Scope::* map, const std::string& name) const {
        for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
            if (auto found = ((*scope).*map).find(name); found != ((*scope).*map).end()) return found->second;
        return -1;
    }

    std::vector<Token> tokens_;
    size_t at_ = 0;
    Ast ast_;
    std::vector<Scope> scopes_;
    Location location_;
};

bool Parser::debug_directive() {
    const uint32_t line = peek().line;
    if (take(".loc")) {
        location_.file = static_cast<uint32_t>(integer());
        location_.source_line = static_cast<uint32_t>(integer());
        skip_line(line);  // column, and where it was inlined
        return true;
    }
    if (take(".file")) {
        const auto number = integer();
        if (number > 100000) fail("file number out of range");
        if (ast_.files.size() <= number) ast_.files.resize(number + 1);
        ast_.files[number] = std::string(next().text);
        skip_line(line);
        return true;
    }
    if (take(".section")) {
        word();
        skip_braces();
        return true;
    }
    if (take(".pragma")) {
        while (!take(';')) next();
        return true;
    }
    return false;
}

bool Parser::variable_space(Space& space) {
    static const std::pair<const char*, Space> kSpaces[] = {{".global", Space::global},
                                                            {".const", Space::constant},
                                                            {".shared", Space::shared},
                                                            {".local", Space::local},
                                                            {".param", Space::param}};
    for (const auto& [text, value] : kSpaces)
        if (take(text)) {
            space = value;
            return true;
        }
    return false;
}

void Parser::module_item() {
    if (debug_directive()) return;
    const uint32_t line = peek().line;
    if (take(".version") || take(".target") || take(".address_size")) {
        skip_line(line);
        return;
    }
    bool external = false;
    while (peek().is(".visible") || peek().is(".weak") || peek().is(".extern") || peek().is(".common"))
        external = next().text == ".extern" || external;
    Space space{};
    if (take(".entry")) {
        function(true);
    } else if (take(".func")) {
        function(false);
    } else if (variable_space(space)) {
        variable(space, external, false);
    } else {
        refuse("the directive '" + std::string(peek().text) + "'");
    }
}

// After the space. Reads "... .type name[n] = ..." with `single` for a parameter, else up to the semicolon.
int32_t Parser::variable(Space space, bool external, bool single) {
    Variable prototype;
    prototype.space = space;
    prototype.external = external;
    for (;;) {
        if (take(".align")) {
            prototype.align = static_cast<uint32_t>(integer());
        } else if (take(".ptr")) {  // what a parameter points to; ".align" after it is about that
            Space pointed{};
            variable_space(pointed);
            if (take(".align")) integer();
        } else if (take(".attribute")) {
            expect('(');
            while (!take(')')) next();
        } else {
            break;
        }
    }
    const std::string type = word();
    prototype.type = type[0] == '.' ? parse_type(std::string_view(type).substr(1)) : Type::none;
    if (prototype.type == Type::none || prototype.type == Type::pred) refuse("variables of type '" + type + "'");
    if (take(".ptr")) {
        Space pointed{};
        variable_space(pointed);
        if (take(".align")) integer();
    }
    int32_t index = -1;
    do {
        Variable v = prototype;
        v.line = peek().line;
        v.name = word();
        v.bytes = size_of(v.type);
        bool unsized = false;
        while (take('[')) {
            if (take(']')) {
                unsized = true;
            } else {
                v.bytes *= integer();
                expect(']');
            }
        }
        if (unsized) v.bytes = 0;
        v.align = std::max({v.align, size_of(v.type), 1U});
        if (take('=')) {
            initializers(v);
            if (unsized) v.bytes = v.values.size() * size_of(v.type);
        }
        if (v.bytes > (uint64_t{1} << 32)) fail("variable '" + v.name + "' is too large");
        index = static_cast<int32_t>(ast_.variables.size());
        // An extern declaration and the definition after it are one variable.
        const auto known = scopes_.size() == 1 ? scopes_[0].variables.find(v.name) : scopes_[0].variables.end();
        if (known != scopes_[0].variables.end() && ast_.variables[known->second].external && !v.external) {
            ast_.variables[known->second] = v;
            index = known->second;
        } else {
            scopes_.back().variables[v.name] = index;
            ast_.variables.push_back(std::move(v));
        }
    } while (!single && take(','));
    if (!single) expect(';');
    return index;
}

void Parser::initializers(Variable& v) {
    if (!take('{')) {
        v.values.push_back(initializer());
        return;
    }
    if (take('}')) return;
    do {
        if (peek().is('{')) {
            initializers(v);
        } else {
            v.values.push_back(initializer());
        }
    } while (take(','));
    expect('}');
}

Initializer Parser::initializer() {
    Initializer value;
    value.generic = take("generic");
    if (value.generic) expect('(');
    if (peek().kind == Token::Kind::word) {
        const std::string symbol = word();
        value.variable = look_up(&Scope::variables, symbol);
        if (value.variable < 0) refuse("an initializer with '" + symbol + "'");
        if (value.generic) expect(')');
        if (peek().is('+') || peek().is('-')) {
            const bool minus = next().is('-');
            const uint64_t offset = integer();
            value.bits = minus ? uint64_t{0} - offset : offset;
        }
        return value;
    }
    const bool negative = take('-');
    if (peek().kind != Token::Kind::number) refuse("the initializer '" + std::string(peek().text) + "'");
    const Number number = parse_number(next());
    value.bits = number.bits;
    value.is_float = number.kind != Number::Kind::integer;
    if (number.kind == Number::Kind::f32) {
        const auto bits = static_cast<uint32_t>(number.bits);
        float single;
        __builtin_memcpy(&single, &bits, 4);
        const double wide = single;
        __builtin_memcpy(&value.bits, &wide, 8);
    }
    if (negative) value.bits = value.is_float ? value.bits ^ (uint64_t{1} << 63) : uint64_t{0} - value.bits;
    if (peek().is('(')) refuse("an initializer that takes bytes of an address");
    return value;
}

std::vector<int32_t> Parser::parameters(Function&) {
    std::vector<int32_t> list;
    expect('(');
    if (take(')')) return list;
    do {
        Space space{};
        if (peek().is(".reg")) refuse("functions with parameters in registers");
        if (!variable_space(space) || space != Space::param) fail("expected a parameter");
        list.push_back(variable(Space::param, false, true));
    } while (take(','));
    expect(')');
    return list;
}

void Parser::function(bool entry) {
    Function f;
    f.entry = entry;
    f.line = peek().line;
    scopes_.emplace_back();
    if (!entry && peek().is('(')) f.results = parameters(f);
    f.name = word();
    if (peek().is('(')) f.parameters = parameters(f);
    for (;;) {
        if (take(".maxntid") || peek().is(".reqntid")) {
            take(".reqntid");
            uint64_t threads = integer();
            while (take(',')) threads *= integer();
            f.max_threads = static_cast<uint32_t>(std::min<uint64_t>(threads, 1024));
        } else if (take(".minnctapersm") || take(".maxnreg") || take(".maxnctapersm")) {
            integer();
        } else if (take(".noreturn") || take(".abi_preserve") || take(".abi_preserve_control")) {
        } else if (!debug_directive()) {
            break;
        }
    }
    if (take('{')) {
        f.defined = true;
        body(f);
    } else if (peek().is(';')) {
        next();
    } else {
        refuse("the directive '" + std::string(peek().text) + "'");
    }
    scopes_.pop_back();
    // A definition replaces its declaration.
    for (Function& known : ast_.functions)
        if (known.name == f.name) {
            if (f.defined) known = std::move(f);
            return;
        }
    ast_.functions.push_back(std::move(f));
}

void Parser::body(Function& f) { block(f); }

// After the opening brace, up to and with the closing one.
void Parser::block(Function& f) {
    scopes_.emplace_back();
    int depth = 0;
    for (size_t i = at_; i + 1 < tokens_.size(); ++i) {  // labels are known before their jumps
        if (tokens_[i].is('{')) ++depth;
        if (tokens_[i].is('}') && depth-- == 0) break;
        if (depth == 0 && tokens_[i].kind == Token::Kind::word && tokens_[i + 1].is(':')) {
            scopes_.back().labels[std::string(tokens_[i].text)] = static_cast<int32_t>(f.labels.size());
            f.labels.emplace_back(tokens_[i].text);
        }
    }
    while (!take('}')) {
        Space space{};
        if (peek().kind == Token::Kind::end) fail("function without end");
        if (take('{')) {
            block(f);
        } else if (take(';') || debug_directive()) {
        } else if (take(".reg")) {
            registers(f);
        } else if (variable_space(space)) {
            variable(space, false, false);
        } else if (peek().kind == Token::Kind::word && peek(1).is(':')) {
            Statement statement;
            statement.label = look_up(&Scope::labels, word());
            expect(':');
            if (peek().is(".branchtargets") || peek().is(".callprototype") || peek().is(".calltargets")) {
                if (!take(".branchtargets")) refuse("the directive '" + std::string(peek().text) + "'");
                // A jump table is kept as an instruction that no control flow reaches.
                statement.instruction.opcode = ".branchtargets";
                statement.instruction.location.line = peek().line;
                do statement.instruction.operands.push_back(operand(f));
                while (take(','));
                expect(';');
            }
            f.body.push_back(std::move(statement));
        } else {
            instruction(f);
        }
    }
    scopes_.pop_back();
}

void Parser::registers(Function& f) {
    const std::string type_word = word();
    const Type type = parse_type(std::string_view(type_word).substr(1));
    if (type == Type::none) refuse("registers of type '" + type_word + "'");
    const auto add = [&](const std::string& name) {
        scopes_.back().registers[name] = static_cast<int32_t>(f.registers.size());
        f.registers.push_back(type);
    };
    do {
        const std::string name = word();
        if (take('<')) {
            const uint64_t count = integer();
            if (count > 1000000) fail("too many registers");
            expect('>');
            for (uint64_t i = 0; i < count; ++i) add(name + std::to_string(i));
        } else {
            add(name);
        }
    } while (take(','));
    expect(';');
}

Operand Parser::named(const std::string& name) {
    Operand o;
    if (name == "_") return o;
    if (const int32_t reg = look_up(&Scope::registers, name); reg >= 0) {
        o.kind = Operand::Kind::reg;
        o.reg = reg;
    } else if (name[0] == '%') {
        o.kind = Operand::Kind::special;
        o.name = name.substr(1);
    } else if (name == "WARP_SZ") {
        o.kind = Operand::Kind::integer;
        o.bits = 32;
    } else if (const int32_t label = look_up(&Scope::labels, name); label >= 0) {
        o.kind = Operand::Kind::label;
        o.index = label;
    } else if (const int32_t found = look_up(&Scope::variables, name); found >= 0) {
        o.kind = Operand::Kind::variable;
        o.index = found;
        o.name = name;
    } else {
        o.kind = Operand::Kind::function;
        o.name = name;
    }
    return o;
}

// After '['.
void Parser::address(Operand& o) {
    if (peek().kind == Token::Kind::word) {
        const Operand base = named(word());
        if (base.kind == Operand::Kind::function) fail("unknown name '" + base.name + "'");
        if (base.kind != Operand::Kind::reg && base.kind != Operand::Kind::variable) refuse("this address");
        o.reg = base.reg;
        o.index = base.index;
        o.name = base.name;
    } else {
        o.offset = static_cast<int64_t>(integer());
    }
    while (peek().is('+') || peek().is('-')) {
        const bool minus = next().is('-');
        const uint64_t value = integer();
        o.offset = static_cast<int64_t>(static_cast<uint64_t>(o.offset) + (minus ? uint64_t{0} - value : value));
    }
    if (peek().is(',')) refuse("tensor addresses");
    expect(']');
    o.kind = Operand::Kind::memory;
}

Operand Parser::operand(const Function& f) {
    Operand o;
    if (take('{') || take('(')) {
        const bool braces = tokens_[at_ - 1].is('{');
        o.kind = braces ? Operand::Kind::vector : Operand::Kind::list;
        const char close = braces ? '}' : ')';
        if (take(close)) return o;
        do o.parts.push_back(operand(f));
        while (take(','));
        expect(close);
        return o;
    }
    if (take('[')) {
        address(o);
        return o;
    }
    if (take('!')) {
        o = operand(f);
        o.negated = true;
        return o;
    }
    if (peek().is('-') || peek().kind == Token::Kind::number) {
        const bool negative = take('-');
        const Number number = parse_number(next());
        o.bits = number.bits;
        o.kind = number.kind == Number::Kind::integer ? Operand::Kind::integer
                 : number.kind == Number::Kind::f32   ? Operand::Kind::f32
                                                      : Operand::Kind::f64;
        if (negative)
            o.bits = o.kind == Operand::Kind::integer ? uint64_t{0} - o.bits
                     : o.kind == Operand::Kind::f32   ? o.bits ^ 0x80000000U
                                                      : o.bits ^ (uint64_t{1} << 63);
        return o;
    }
    o = named(word());
    if (take('|')) {
        Operand pair;
        pair.kind = Operand::Kind::pair;
        pair.parts.push_back(std::move(o));
        pair.parts.push_back(named(word()));
        return pair;
    }
    if (o.kind == Operand::Kind::variable && (peek().is('+') || peek().is('-'))) {
        const bool minus = next().is('-');
        const uint64_t value = integer();
        o.offset = static_cast<int64_t>(minus ? uint64_t{0} - value : value);
    }
    return o;
}

void Parser::instruction(Function& f) {
    Statement statement;
    Instruction& i = statement.instruction;
    i.location = location_;
    i.location.line = peek().line;
    if (take('@')) {
        i.guard_negated = take('!');
        const Operand guard = named(word());
        if (guard.kind != Operand::Kind::reg || f.registers[guard.reg] != Type::pred)
            fail("a guard must be a predicate register");
        i.guard = guard.reg;
        i.location.line = peek().line;
    }
    const std::string text = word();
    if (text[0] == '.') refuse("the directive '" + text + "'");
    size_t begin = 0;
    for (;;) {
        const size_t dot = text.find('.', begin);
        const std::string part = text.substr(begin, dot - begin);
        if (begin == 0) {
            i.opcode = part;
        } else {
            i.words.push_back(part);
        }
        if (dot == std::string::npos) break;
        begin = dot + 1;
    }
    if (!peek().is(';')) {
        do i.operands.push_back(operand(f));
        while (take(','));
    }
    expect(';');
    f.body.push_back(std::move(statement));
}

}  // namespace

std::string Instruction::text() const {
    std::string text = opcode;
    for (const std::string& word : words) text += "." + word;
    return text;
}

const Function* Ast::find(const std::string& function_name) const {
    for (const Function& f : functions)
        if (f.name == function_name) return &f;
    return nullptr;
}

Ast parse(const std::string& ptx) { return Parser(ptx).run(); }

}  // namespace vlmk::emulator
